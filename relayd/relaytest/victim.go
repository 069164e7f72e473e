package relaytest

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// RunVictim runs the test binary once more, with env added to its environment: its TestMain is to take that for the order to do
// something until it is killed. heard gets each line that the victim prints, and kills it by answering true; a line without its
// end was never said. killed is false when the victim came to its end by itself. Any other end of it fails the test.
func RunVictim(t *testing.T, env []string, heard func(line string) (kill bool)) (killed bool) {
	t.Helper()
	victim := exec.CommandContext(t.Context(), os.Args[0])
	victim.Env = append(os.Environ(), env...)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err == nil {
		err = victim.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if heard(strings.TrimSuffix(line, "\n")) {
			_ = victim.Process.Kill() // it may have ended by itself
		}
	}
	err = victim.Wait()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("the victim was not killed but failed: %v", err)
	}
	return err != nil
}
