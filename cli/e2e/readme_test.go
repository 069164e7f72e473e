package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"activerelay/relayd"
	"activerelay/server"
)

var update = flag.Bool("update", false, "write what the tests compare with anew")

var referenceMarks = regexp.MustCompile(`(?s)(<!-- generated: [^\n]*-update -->\n).*?(<!-- end -->)`)

// The reference of the configuration is made from the settings themselves, so that README and programs cannot disagree.
func TestTheReadmeHoldsTheConfigurationReference(t *testing.T) {
	path := filepath.Join("..", "..", "README.md")
	text, err := os.ReadFile(path)
	must(t, err)
	reference := "\n### relay-server\n\n" + server.Reference() + "\n### relayd\n\n" + relayd.Reference() +
		"\n### relayctl\n\nIts settings are flags of every command; see [cli/README.md](cli/README.md#flags-of-every-command).\n\n"
	if !referenceMarks.Match(text) {
		t.Fatal("README.md has no place for the reference")
	}
	want := referenceMarks.ReplaceAll(text, []byte("${1}"+strings.ReplaceAll(reference, "$", "$$")+"${2}"))
	if string(want) == string(text) {
		return
	}
	if *update {
		must(t, os.WriteFile(path, want, 0o644))
		return
	}
	t.Error("README.md has another configuration reference than the programs; run: go test ./cli/e2e -run " + t.Name() + " -update")
}

var codeBlock = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")

// A command that the README shows exists, with the flags that it shows.
func TestEveryCommandThatTheReadmeShowsExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	must(t, err)
	checked := 0
	for _, block := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "relayctl" {
				continue
			}
			checked++
			args := append(strings.Fields(strings.ReplaceAll(line, `"Acme IT"`, "Acme"))[1:], "--dry-run", "--url", "http://127.0.0.1:1", "--token", "x")
			cmd := command("relayctl", args...)
			cmd.Env = append(cmd.Env, "HOME="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() == 2 {
				t.Errorf("%s: %s", strings.TrimSpace(line), out)
			}
		}
	}
	if checked == 0 {
		t.Error("the README shows no command of relayctl")
	}
}
