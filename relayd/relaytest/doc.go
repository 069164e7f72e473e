// Package relaytest stands in for the outside world in tests: the mail servers
// that a relay delivers to and the DNS that names them.
//
// [MX] is a real SMTP server on loopback that answers as its [Script] says and
// records every message byte for byte. A script is a function from the
// conversation's [Step] to an [Action], so hostile servers are written as
// sentences:
//
//	mx := relaytest.StartMX(t, relaytest.Script{
//		On: map[relaytest.Stage]relaytest.Action{
//			relaytest.StageData: relaytest.SayAndClose("421 4.3.2 going down"),
//		},
//	})
//
// [DNS] is a real DNS server on loopback with its zones in a map, plus
// failures on demand.
//
// [Network] is a second host: a network namespace, whose packets can be lost.
//
// Nothing here sleeps, uses a fixed port or leaves loopback and the networks
// that it makes. Only tests may import the package.
package relaytest
