// Package admit decides whether mail may be relayed: may this client speak for
// that sender, is the message bulk, is the limit reached.
//
// Every function is pure: what is known ([View]) and what the client said come
// in, a [Verdict] goes out. The edge runs them for real, and whoever asks "would
// this be relayed?" runs the same code. A verdict carries its receipt: the checks
// in the order in which they were made, of which the last one decided.
//
// # Stale policy
//
// An edge goes on relaying by the policy on its disk. But a permanent refusal
// because of something that it may not have heard of yet, such as a domain that
// was registered a moment ago, would be wrong for ever. So while policy is not
// fresh, what would be a 5xx becomes a 451, and what is allowed stays allowed.
//
// # Tenants
//
// A sender domain of another partner is answered exactly like one that is not
// registered at all: same reason, same text, same checks.
//
// The package counts nothing: units are held and spent in the edge's ledger.
package admit
