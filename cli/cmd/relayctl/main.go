// Command relayctl manages an Active Relay platform from the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"activerelay/cli"
)

// version is set when the program is linked.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Program{Version: version}.Main(ctx, os.Args[1:], cli.OSEnv()))
}
