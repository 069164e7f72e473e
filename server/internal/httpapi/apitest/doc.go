// Package apitest holds the API to its contract and to the controls of the design, through a real control plane on both
// databases. It has tests only.
package apitest
