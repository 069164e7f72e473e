// Command relayd is an edge of Active Relay: it accepts mail and relays it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"activerelay/relayd"
)

// version is set when the program is linked.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(relayd.Program{Version: version}.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
