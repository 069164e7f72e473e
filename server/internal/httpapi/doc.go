// Package httpapi is the use cases of the control plane: one method for each operation of the contract, one file for
// each resource, behind the middleware that every request passes once and in the same order.
//
// A request is recovered from panics, named, logged, limited in size and rate, authenticated, authorised and validated
// against the contract before a handler sees it. Authorisation is data: the scope and the roles of each operation stand
// in the contract, and an operation without them fails at start-up, so nothing is allowed by omission.
//
// A handler opens one [store.Store.Read] or [store.Store.Write] in the tenancy of the caller's [Principal]. What the
// caller may not see is not found, by the same statements and in the same words as what does not exist. Inside a write
// the handler changes rows, notes an audit entry and names the policy documents it touches; a POST runs under the
// caller's Idempotency-Key, whose kept result commits with the effect. Errors travel as values to one switch, in
// errors.go; what it does not know is a 500 with the request id and no detail.
//
// Shape and ranges are the contract's and are not checked again here. Rules that two programs must agree on are in the
// pure packages under api.
package httpapi
