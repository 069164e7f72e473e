package api

// CapabilityVersion counts the changes of the edge protocols that the other end may have to know of.
//
//   - 1 (2026-11-22): join, policy, leases, events, secrets; instruction send-notice.
//   - 2 (2026-11-24): events say where the recipients of a message are and each deferral; instructions queue-retry, queue-hold,
//     queue-release, queue-cancel.
const CapabilityVersion = 2
