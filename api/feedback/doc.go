// Package feedback is the token by which an abuse complaint finds its way back
// to the message, the user, the client address and the domain it is about.
//
// Every relayed message carries one in its CFBL-Feedback-ID field (RFC 9477),
// which whoever complains sends back untouched. To everybody but us the token
// is opaque: it says which edge wrote it and nothing else. The claims are sealed
// by AES-256-GCM under a key that only that edge and the control plane hold, and
// the edge's id is authenticated with them, so that nobody can make a complaint
// against somebody else's domain, read who sent a message through us, or pass a
// token of one edge off as another's.
//
//	v1:<edge id>:<base64url of nonce, ciphertext and tag>
//
// A [Sealer] makes tokens and writes them as folded header fields, [Edge] says
// whose key is needed and [Open] reads one. White space is ignored in reading,
// since mail systems fold and refold long fields. The separators are colons
// because RFC 9477 admits atext, ":" and folding white space there, and no dots.
//
// A token does not expire. How old a complaint may be is the control plane's
// question, as is what follows from it.
package feedback
