// Command opsgen writes the command table of relayctl from the contract.
//
// It reads openapi.yaml, refuses what would make a poor command (an operation
// without an id, a group, a verb, a summary, a description or an example; two
// operations of one name; two flags of one name), and writes one Go literal
// for each operation, sorted by command, so that the same contract always
// gives the same bytes. Everything that needs judgement at run time stays in
// the packages that read the table.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/getkin/kin-openapi/openapi3"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "opsgen:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("opsgen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	spec := flags.String("spec", "openapi.yaml", "the contract to read")
	out := flags.String("out", "ops.gen.go", "the file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	source, err := generate(*spec)
	if err != nil {
		return fmt.Errorf("%s: %w", *spec, err)
	}
	return os.WriteFile(*out, source, 0o644)
}

// generate returns the Go source of the table for the contract in the file.
func generate(spec string) ([]byte, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(spec)
	if err != nil {
		return nil, fmt.Errorf("reading the contract: %w", err)
	}
	table, err := rows(doc)
	if err != nil {
		return nil, err
	}
	return source(table, resources(doc))
}
