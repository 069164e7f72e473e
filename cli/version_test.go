package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheVersionIsTheOneThatTheProgramWasBuiltAs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	env := Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return t.TempDir() }}
	if code := (Program{Version: "v1.2.3"}).Main(t.Context(), []string{"version", "--jq", ".version", "--config", os.DevNull}, env); code != 0 || stdout.String() != "v1.2.3\n" {
		t.Errorf("exit code %d, %q; standard error: %s", code, &stdout, &stderr)
	}
}

// The linker says nothing when it is told to set a variable that is not there.
func TestTheLinkersVersionIsShown(t *testing.T) {
	if testing.Short() {
		t.Skipf("SKIPPED %s in the short form: it links a program", t.Name())
	}
	program := filepath.Join(t.TempDir(), "relayctl")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.version=v9.8.7-test", "-o", program, "./cmd/relayctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program, "version", "--jq", ".version")
	cmd.Env = []string{"HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "v9.8.7-test\n" {
		t.Errorf("%v: %s", err, out)
	}
}
