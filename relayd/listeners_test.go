package relayd_test

import (
	"net"
	"strings"
	"testing"

	"activerelay/relayd"
	"activerelay/relayd/relaytest/edgetest"
)

func TestAnAddressThatCannotBeListenedOnIsNamedWithItsSettingAndWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().String()
	cert, key, _ := writePair(t, t.TempDir())
	for _, test := range []struct {
		set  func(*relayd.Config)
		want []string
	}{
		{set: func(c *relayd.Config) { c.Listen = inUse }, want: []string{"--listen " + inUse + ": ", "address already in use; end the program"}},
		{set: func(c *relayd.Config) { c.SubmissionListen = inUse }, want: []string{"--submission-listen " + inUse + ": "}},
		{set: func(c *relayd.Config) { c.TLSListen = inUse }, want: []string{"--tls-listen " + inUse + ": "}},
		{set: func(c *relayd.Config) { c.AdminListen = inUse }, want: []string{"--admin-listen " + inUse + ": "}},
		{set: func(c *relayd.Config) { c.Listen = "192.0.2.1:2525" }, want: []string{"--listen 192.0.2.1:2525: ", "this host has no such address"}},
	} {
		settings := edgetest.Settings(t, edgetest.Config{Server: "http://127.0.0.1:1", JoinToken: "rly_join_nobody", DataDir: t.TempDir(), Configure: func(c *relayd.Config) {
			c.TLSCert, c.TLSKey = cert, key
			test.set(c)
		}})
		err := relayd.Run(t.Context(), settings)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	}
}
