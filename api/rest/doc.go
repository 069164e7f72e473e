// Package rest is the server side of the contract, all of it generated: routes, the strict handler interface, and the
// contract itself, embedded. Only the control plane imports it, so that echo stays out of relayd and relayctl.
package rest
