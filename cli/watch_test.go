package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/api/problem"
)

// looks answers one body after another, each with a time of its own, and ends
// the watching at the last. An empty body is a server that is away.
func looks(t *testing.T, stop context.CancelFunc, bodies ...string) *httptest.Server {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n == len(bodies) {
			stop()
			return
		}
		body := bodies[n]
		n++
		w.Header().Set("Date", fmt.Sprintf("Tue, 24 Nov 2026 09:00:%02d GMT", n))
		if body == "" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"type":"urn:activerelay:reason:unavailable","title":"Unavailable","status":503,"reason":"unavailable","request_id":"r"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

// watch runs a command until the server has nothing more to show.
func watch(t *testing.T, size []int, bodies []string, args ...string) outcome {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	server := looks(t, stop, bodies...)
	var stdout, stderr bytes.Buffer
	home := t.TempDir()
	env := Env{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, StdoutTTY: size != nil,
		Getenv: func(name string) string { return map[string]string{"XDG_CONFIG_HOME": home}[name] },
	}
	if size != nil {
		env.Size = func() (int, int) { return size[0], size[1] }
	}
	if !slices.Contains(args, "--interval") {
		args = append(args, "--interval", "100ms")
	}
	code := Main(ctx, append(args, "--url", server.URL, "--token", "t", "--watch"), env)
	return outcome{code: code, stdout: strings.ReplaceAll(stdout.String(), server.URL, "URL"), stderr: stderr.String()}
}

func summaryOf(groups ...string) string {
	return fmt.Sprintf(`{"as_of":"2026-11-24T09:00:00Z","groups_total":%d,"items":3,"groups":[%s]}`, len(groups), strings.Join(groups, ","))
}

func groupOf(key string, items, age int, reply string) string {
	return fmt.Sprintf(`{"key":%q,"items":%d,"queued":%d,"held":0,"quarantined":0,"oldest_age_seconds":%d,"last_reply":%q}`, key, items, items, age, reply)
}

func TestWatchingWithoutATerminalWritesALineForEachChange(t *testing.T) {
	got := watch(t, nil, []string{
		summaryOf(groupOf("a.example", 2, 59, "451 later"), groupOf("b.example", 1, 3600, "")),
		"",
		summaryOf(groupOf("a.example", 2, 59, "451 later"), groupOf("b.example", 1, 90000, "")),
		summaryOf(groupOf("b.example", 1, 90000, ""), strings.Replace(groupOf("c.example", 1, 61, "550 ESC[2J"), "ESC", "\\u001b", 1)),
	}, "queue", "summary").expect(t, 0, "Unavailable")
	want := strings.Join([]string{
		"TIME\tCHANGE\tKEY\tITEMS\tHELD\tQUARANTINED\tOLDEST AGE\tDELAY REASON\tLAST REPLY",
		"2026-11-24T09:00:01Z\tnew\ta.example\t2\t0\t0\t59s\t-\t451 later",
		"2026-11-24T09:00:01Z\tnew\tb.example\t1\t0\t0\t1h0m\t-\t-",
		"2026-11-24T09:00:03Z\tchanged\tb.example\t1\t0\t0\t1d1h\t-\t-",
		"2026-11-24T09:00:04Z\tgone\ta.example\t2\t0\t0\t59s\t-\t451 later",
		"2026-11-24T09:00:04Z\tnew\tc.example\t1\t0\t0\t1m1s\t-\t550 \uFFFD[2J",
	}, "\n") + "\n"
	if got.stdout != want {
		t.Errorf("got\n%s\nwant\n%s", got.stdout, want)
	}
}

func TestWatchingAsJSONWritesALineForEachLook(t *testing.T) {
	one, two := summaryOf(groupOf("a.example", 2, 1, "")), summaryOf()
	got := watch(t, nil, []string{one, two}, "queue", "summary", "-o", "json").expect(t, 0)
	if lines := strings.Split(strings.TrimSpace(got.stdout), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `"a.example"`) || !strings.Contains(lines[1], `"groups":[]`) {
		t.Errorf("got %q", got.stdout)
	}
	got = watch(t, nil, []string{one, two}, "queue", "summary", "--jq", ".groups_total").expect(t, 0)
	if got.stdout != "1\n0\n" {
		t.Errorf("with a filter got %q", got.stdout)
	}
}

// frames are what a terminal was told to show, each without its escapes, and
// what it keeps at the end.
func frames(stdout string) (shown []string, kept string) {
	stdout, kept, _ = strings.Cut(stdout, "\x1b[?25h\x1b[?1049l")
	for _, frame := range strings.Split(strings.TrimPrefix(stdout, "\x1b[?1049h\x1b[?25l\x1b[H"), "\x1b[H") {
		shown = append(shown, strings.NewReplacer("\x1b[K", "", "\x1b[J", "", "\r", "").Replace(frame))
	}
	return shown, strings.ReplaceAll(kept, "\r", "")
}

func TestWatchingOnATerminalKeepsTheTableInPlaceAndWithinIt(t *testing.T) {
	long := strings.Repeat("x", 200)
	got := watch(t, []int{60, 6}, []string{
		summaryOf(groupOf("a.example", 2, 1, long), groupOf("b.example", 1, 1, ""), groupOf("c.example", 1, 1, "")),
		"",
		summaryOf(groupOf("a.example", 2, 1, "")),
	}, "queue", "summary", "--color", "never", "--columns", "key,items,last_reply").expect(t, 0)
	if !strings.HasPrefix(got.stdout, "\x1b[?1049h\x1b[?25l\x1b[H") || strings.Count(got.stdout, "\x1b[J") != 3 {
		t.Errorf("the terminal is told %q", got.stdout)
	}
	shown, kept := frames(got.stdout)
	if len(shown) != 3 {
		t.Fatalf("%d frames: %q", len(shown), shown)
	}
	for _, frame := range shown {
		lines := strings.Split(frame, "\n")
		if len(lines) > 6 {
			t.Errorf("a frame of %d lines on a terminal of 6:\n%s", len(lines), frame)
		}
		for _, line := range lines {
			if len(line) > 60 {
				t.Errorf("a line of %d columns on a terminal of 60: %q", len(line), line)
			}
		}
	}
	want := "relayctl queue summary, every 100ms, URL"
	if !strings.Contains(shown[0], "a.example") || !strings.Contains(shown[0], "b.example") || strings.Contains(shown[0], "c.example") ||
		!strings.HasSuffix(shown[0], "(there is more)") || !strings.HasPrefix(shown[0], want[:30]) {
		t.Errorf("the first frame is\n%s", shown[0])
	}
	if !strings.HasPrefix(shown[1], "OUT OF DATE since 2026-11-24T09:00:01Z: ") || !strings.Contains(shown[1], "a.example") {
		t.Errorf("while the server is away the frame is\n%s", shown[1])
	}
	if !strings.Contains(kept, "a.example") || strings.Contains(kept, "b.example") {
		t.Errorf("what stays is\n%s", kept)
	}
}

// A server that is asked too often is asked again when it says, from
// the first look on.
func TestWatchingObeysAServerThatIsAskedTooOften(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var looks []time.Time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		looks = append(looks, time.Now())
		switch len(looks) {
		case 1, 3:
			p := problem.RateLimited(time.Second)
			w.Header().Set("Content-Type", problem.ContentType)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(p.Status)
			_ = problem.Encode(w, p)
		case 2, 4:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, summaryOf(groupOf("a.example", len(looks), 1, "")))
		default:
			stop()
		}
	}))
	t.Cleanup(server.Close)
	var stdout, stderr bytes.Buffer
	home := t.TempDir()
	env := Env{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) string { return map[string]string{"HOME": home}[name] },
	}
	code := Main(ctx, []string{"queue", "summary", "--watch", "--interval", "100ms", "--no-headers", "--url", server.URL, "--token", "t"}, env)
	if code != 0 || strings.Count(stderr.String(), "; looking again in 1s\n") != 2 {
		t.Errorf("exit code %d, and it said\n%s", code, stderr.String())
	}
	if !strings.Contains(stdout.String(), "\tnew\ta.example\t2\t") || !strings.Contains(stdout.String(), "\tchanged\ta.example\t4\t") {
		t.Errorf("shown:\n%s", stdout.String())
	}
	for _, n := range []int{0, 2} {
		if len(looks) < 4 {
			t.Fatalf("%d looks", len(looks))
		}
		if waited := looks[n+1].Sub(looks[n]); waited < time.Second {
			t.Errorf("after refusal %d it waited for %s", n, waited)
		}
	}
}

func TestATerminalSaysWhyNothingIsSeenYet(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked > 1 {
			stop()
		}
		p := problem.RateLimited(0)
		w.Header().Set("Content-Type", problem.ContentType)
		w.WriteHeader(p.Status)
		_ = problem.Encode(w, p)
	}))
	t.Cleanup(server.Close)
	var stdout bytes.Buffer
	home := t.TempDir()
	env := Env{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &bytes.Buffer{}, StdoutTTY: true,
		Getenv: func(name string) string { return map[string]string{"HOME": home}[name] },
		Size:   func() (int, int) { return 100, 20 },
	}
	code := Main(ctx, []string{"queue", "summary", "--watch", "--interval", "100ms", "--url", server.URL, "--token", "t"}, env)
	if shown, _ := frames(stdout.String()); code != 0 || !strings.HasPrefix(shown[0], "NOTHING SEEN yet: ") || !strings.Contains(shown[0], "; looking again in 100ms") {
		t.Errorf("exit code %d, and the terminal shows %q", code, shown)
	}
}

func TestWatchingEndsAtARefusalAndNeedsWhatItCanShow(t *testing.T) {
	watch(t, nil, []string{""}, "queue", "summary", "--timeout", "1s").expect(t, 7, "Unavailable")
	watch(t, nil, nil, "queue", "list", "-o", "csv").expect(t, 2, "--watch shows a table")
	watch(t, nil, nil, "queue", "list", "--interval", "1ms").expect(t, 2, "--interval takes 100ms or more")
	newDesk(t).run(t, "queue", "list", "--interval", "5s").expect(t, 2, "--interval goes with --watch")
	watch(t, nil, nil, "partner", "list").expect(t, 2, "unknown flag")
}
