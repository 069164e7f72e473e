package bench

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"sync"
	"time"
)

const usage = `smtpload sends SMTP load, takes it in, or relays it as barely as can be.

  smtpload send --server 127.0.0.1:2525 --from anna@example.com --to bob@example.net --messages 1000 --sessions 20
  smtpload sink --listen 127.0.0.1:2526
  smtpload ceiling --listen 127.0.0.1:2525 --next 127.0.0.1:2526 --dir /var/tmp/ceiling

Run "smtpload send -h", "smtpload sink -h" or "smtpload ceiling -h" for the flags.
`

// Main runs the program and answers its exit code: 0 done, 1 failure (nothing was accepted among them), 2 usage.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(stdout, usage)
		return 0
	}
	var err error
	switch args[0] {
	case "send":
		err = sendMain(ctx, args[1:], stdout, stderr)
	case "sink":
		err = sinkMain(ctx, args[1:], stdout, stderr)
	case "ceiling":
		err = ceilingMain(ctx, args[1:], stdout, stderr)
	default:
		fmt.Fprintf(stderr, "smtpload: unknown command %q\n\n%s", args[0], usage)
		return 2
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "smtpload: %v\n", err)
		return 1
	}
	return 0
}

func sendMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var load Load
	var log string
	flags := flag.NewFlagSet("smtpload send", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&load.Server, "server", "", "address of the relay, host:port")
	flags.StringVar(&load.From, "from", "", "envelope and header sender")
	flags.StringVar(&load.To, "to", "", "recipient")
	flags.IntVar(&load.Messages, "messages", 1, "how many messages to send")
	flags.IntVar(&load.Sessions, "sessions", 1, "how many connections send side by side")
	flags.IntVar(&load.SizeBytes, "size", 5120, "bytes of one message")
	flags.IntVar(&load.PerConnection, "per-connection", 0, "messages of one connection; 0 = no limit")
	flags.StringVar(&load.RunID, "run-id", "load", "start of each message's X-Load-Id")
	flags.DurationVar(&load.RetryAfter, "retry-after", 0, "pause before a broken connection or a deferral is tried again; 0 = never")
	flags.StringVar(&log, "acknowledged", "", "file that takes the ids of acknowledged messages")
	if err := flags.Parse(args); err != nil {
		return err
	}
	record, done, err := idLog(log)
	if err != nil {
		return err
	}
	load.Acknowledged = record
	outcome, err := Send(ctx, load)
	if logErr := done(); err == nil {
		err = logErr
	}
	printOutcome(stdout, outcome)
	if err == nil && outcome.Accepted == 0 {
		err = errors.New("no message was accepted")
	}
	return err
}

func printOutcome(w io.Writer, o Outcome) {
	rate := float64(o.Accepted) / max(o.Elapsed.Seconds(), 1e-9)
	fmt.Fprintf(w, "accepted %d in %v (%.0f a second; p50 %v, p99 %v)\n", o.Accepted, o.Elapsed.Round(time.Millisecond), rate,
		o.Percentile(50).Round(10*time.Microsecond), o.Percentile(99).Round(10*time.Microsecond))
	lines := make([]string, 0, len(o.Replies))
	for line := range o.Replies {
		lines = append(lines, line)
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Fprintf(w, "refused  %d: %s\n", o.Replies[line], line)
	}
	if o.Reference != "" {
		fmt.Fprintf(w, "the last refusal ended: %s\n", o.Reference)
	}
	if o.Broken > 0 {
		fmt.Fprintf(w, "broken connections %d\n", o.Broken)
	}
}

func sinkMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("smtpload sink", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	log := flags.String("received", "", "file that takes the ids of received messages")
	keep := flags.String("keep", "", "directory that takes each message as a file; empty keeps none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	record, done, err := idLog(*log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	options := SinkOptions{KeepDir: *keep}
	if record != nil {
		options.Received = func(a Arrival) { record(a.ID) }
	}
	sink := ServeSink(listener, options)
	fmt.Fprintf(stdout, "sink listens on %s\n", sink.Addr())
	<-ctx.Done()
	err = sink.Close()
	if logErr := done(); err == nil {
		err = logErr
	}
	fmt.Fprintf(stdout, "received %d messages, %d bytes\n", sink.Messages(), sink.Bytes())
	return err
}

func ceilingMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("smtpload ceiling", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	next := flags.String("next", "", "address of the server that gets the mail, host:port")
	dir := flags.String("dir", "", "directory of the log")
	senders := flags.Int("senders", 20, "connections to the next server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ceiling, err := NewCeiling(listener, *next, *dir, *senders)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "ceiling listens on %s\n", listener.Addr())
	<-ctx.Done()
	return ceiling.Close()
}

// idLog answers a function that appends ids to the file, a line each, and one that finishes it.
func idLog(path string) (record func(string), done func() error, err error) {
	if path == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open id log: %w", err)
	}
	var mu sync.Mutex
	buffered := bufio.NewWriter(file)
	record = func(id string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(buffered, id)
	}
	done = func() error {
		if err := buffered.Flush(); err != nil {
			return fmt.Errorf("write id log: %w", err)
		}
		return file.Close()
	}
	return record, done, nil
}
