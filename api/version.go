package api

// CapabilityVersion counts the changes of the edge protocols that the other end may have to know of.
//
//   - 1 (2026-11-22): join, policy, leases, events, secrets; instruction send-notice.
//   - 2 (2026-11-24): events say where the recipients of a message are and each deferral; instructions queue-retry, queue-hold,
//     queue-release, queue-cancel.
//   - 3 (2026-11-24): each poll says what the edge runs; events say how an attempt was protected and why mail waits; the
//     platform's document has limits per destination.
const CapabilityVersion = 3
