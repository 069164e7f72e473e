// Package api holds what both ends of the wire must agree on: the models of the contract, generated from openapi.yaml,
// and, in its sub-packages, the pure rules that control plane and edge apply alike.
//
// It imports nothing of ours. The server glue (package rest) and the client (package client) are generated apart, so that
// relayd and relayctl link neither echo nor the embedded contract.
//
// Compatibility: a released operation, field or enum value is never removed or narrowed; a new field of a request is
// optional; a reader ignores documents and instructions of kinds that it does not know, and whole operations on the queue in
// which it does not know a field.
package api

//go:generate go tool oapi-codegen -config gen/types.yaml ../openapi.yaml
//go:generate go tool oapi-codegen -config gen/client.yaml ../openapi.yaml
//go:generate go tool oapi-codegen -config gen/rest.yaml ../openapi.yaml
