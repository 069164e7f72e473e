package e2e

import (
	"flag"
	"net"
	"os"
	"os/exec"
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

// stackWith returns the script behind `make run` in a directory of its own, with programs that are shell scripts, and on free
// ports.
func stackWith(t *testing.T, programs map[string]string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile(filepath.Join("..", "..", ".ci", "stack"))
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, ".ci"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, ".ci", "stack"), script, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	for name, text := range programs {
		must(t, os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	cmd := exec.Command(filepath.Join(dir, ".ci", "stack"), "run")
	cmd.Env = os.Environ()
	for _, place := range []string{"API", "SMTP", "SUBMISSION", "ADMIN", "MAILBOX"} {
		cmd.Env = append(cmd.Env, "STACK_"+place+"=127.0.0.1:"+freePort(t))
	}
	return cmd
}

func TestTheStackNamesTheProgramThatEndedWithWhatItWroteLast(t *testing.T) {
	cmd := stackWith(t, map[string]string{"smtpload": "exec sleep 600", "relay-server": "echo the disk is full >&2; exit 3"})
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stack: relay-server ended while the stack waited for its operator token. The end of .run/relay-server.log:\n  the disk is full\n") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestTheStackNamesAPortThatIsTakenAndHowToChooseAnother(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	cmd := stackWith(t, nil)
	cmd.Env = append(cmd.Env, "STACK_SMTP="+listener.Addr().String())
	out, err := cmd.CombinedOutput()
	want := regexp.MustCompile("^stack: " + regexp.QuoteMeta(listener.Addr().String()) +
		` \(edge\) is in use\. Stop what listens there, or choose another: STACK_SMTP=127\.0\.0\.1:[0-9]+ make run\n$`)
	if err == nil || !want.Match(out) {
		t.Errorf("%v:\n%s", err, out)
	}
}
