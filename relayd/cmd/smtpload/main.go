// Command smtpload sends SMTP load, or takes it in; see package bench.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"activerelay/relayd/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(bench.Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
