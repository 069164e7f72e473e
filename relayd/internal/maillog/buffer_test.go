package maillog_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/relayd/internal/maillog"
)

// reader is what stands behind a Buffer. While it is blocked it takes nothing.
type reader struct {
	blocked chan struct{} // nil: it reads

	mu    sync.Mutex
	text  strings.Builder
	calls int
}

func (r *reader) Write(p []byte) (int, error) {
	if r.blocked != nil {
		<-r.blocked
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	return r.text.Write(p)
}

func (r *reader) has(t *testing.T, calls int, text string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls != calls || r.text.String() != text {
		t.Errorf("%d writes of %q, want %d of %q", r.calls, r.text.String(), calls, text)
	}
}

func lostLines(n int) []byte { return fmt.Appendf(nil, "lost %d\n", n) }

func say(t *testing.T, w io.Writer, line string) {
	t.Helper()
	if n, err := io.WriteString(w, line); n != len(line) || err != nil {
		t.Errorf("wrote %d bytes of %d, %v", n, len(line), err)
	}
}

func TestLinesAreWrittenTogetherFiftyMillisecondsAfterTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		b := maillog.NewBuffer(r, lostLines)
		defer func() { _ = b.Close() }()
		say(t, b, "a\n")
		time.Sleep(30 * time.Millisecond)
		say(t, b, "b\n")
		time.Sleep(19 * time.Millisecond)
		synctest.Wait()
		r.has(t, 0, "")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		r.has(t, 1, "a\nb\n")
		say(t, b, "c\n")
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		r.has(t, 2, "a\nb\nc\n")
	})
}

func TestALineOfTheProcessLogIsWrittenAtOnceAndInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		b := maillog.NewBuffer(r, lostLines)
		defer func() { _ = b.Close() }()
		say(t, b, "a\n")
		say(t, b.Immediate(), "warning\n")
		r.has(t, 1, "a\nwarning\n")
	})
}

func TestAnErrorInTheMailLogIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		b := maillog.NewBuffer(r, lostLines)
		defer func() { _ = b.Close() }()
		l := maillog.New(maillog.Config{Out: b})
		l.Accepted(message(), nil)
		l.Held(message(), "panic", errors.New("boom"))
		if r.calls != 1 || strings.Count(r.text.String(), "\n") != 2 {
			t.Errorf("%d writes: %s", r.calls, r.text.String())
		}
	})
}

func TestTheEndWritesWhatWaits(t *testing.T) {
	r := &reader{}
	b := maillog.NewBuffer(r, lostLines)
	say(t, b, "a\n")
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	r.has(t, 1, "a\n")
	if _, err := io.WriteString(b, "late\n"); err == nil {
		t.Error("a closed buffer took a line")
	}
}

func TestManyLinesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		b := maillog.NewBuffer(r, lostLines)
		defer func() { _ = b.Close() }()
		began := time.Now()
		for range 1000 {
			say(t, b, strings.Repeat("x", 199)+"\n")
			synctest.Wait()
		}
		if time.Since(began) > 0 || r.text.Len() < 128<<10 {
			t.Errorf("%d bytes were written in %v", r.text.Len(), time.Since(began))
		}
	})
}

// A session must not stand still for ever because nobody reads the log.
func TestAReaderThatStandsStillCostsASecondAndThenLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{blocked: make(chan struct{})}
		b := maillog.NewBuffer(r, lostLines)
		line := strings.Repeat("x", 1023) + "\n"
		began := time.Now()
		const lines = 3000
		for range lines {
			say(t, b, line)
			say(t, b.Immediate(), "w\n")
		}
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("the writer was held up for %v", took)
		}
		if err := b.Flush(); err != nil || time.Since(began) > 3*time.Second {
			t.Errorf("flush: %v after %v", err, time.Since(began))
		}
		close(r.blocked)
		time.Sleep(time.Second)
		say(t, b, "after\n")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		text := r.text.String()
		kept, missing := strings.Count(text, "\n")-2, 0
		_, _ = fmt.Sscanf(text[strings.Index(text, "lost "):], "lost %d\n", &missing)
		if kept+missing != 2*lines || missing == 0 || !strings.HasSuffix(text, "after\n") {
			t.Errorf("%d lines kept and %d said to be lost, of %d", kept, missing, 2*lines)
		}
	})
}

func TestManyWritersLoseNothing(t *testing.T) {
	r := &reader{}
	b := maillog.NewBuffer(r, lostLines)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 500 {
				to := io.Writer(b)
				if i%100 == 0 {
					to = b.Immediate()
				}
				say(t, to, fmt.Sprintf("%d/%d\n", w, i))
			}
		})
	}
	all.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for line := range strings.Lines(r.text.String()) {
		writer, number, _ := strings.Cut(strings.TrimSpace(line), "/")
		if number != fmt.Sprint(next[writer]) {
			t.Fatalf("line %q, want number %d", line, next[writer])
		}
		next[writer]++
	}
	for w := range 8 {
		if next[fmt.Sprint(w)] != 500 {
			t.Errorf("writer %d: %d lines of 500", w, next[fmt.Sprint(w)])
		}
	}
}
