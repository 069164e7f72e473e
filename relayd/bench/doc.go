// Package bench holds the load generator and the sink by which relayd is measured beside its peers, and the benchmarks that
// use them. Both ends speak just enough SMTP, with as little work per message as they can, so that what is measured is the
// relay between them. Every message carries its own id in an X-Load-Id header: the generator logs the ids that were
// acknowledged, the sink the ids that arrived, and the two logs together show whether anything was lost or doubled.
//
// It is a test instrument: it checks nothing of what a stranger sends beyond what keeps it alive.
package bench
