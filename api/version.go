package api

// CapabilityVersion counts the changes of the edge protocols that the other end may have to know of.
//
//   - 1 (2026-11-22): join, policy, leases, events, secrets; instruction send-notice.
const CapabilityVersion = 1
