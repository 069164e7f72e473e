package apitest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"activerelay/server"
	"activerelay/server/internal/httpapi"
)

// hostileMemory is how much memory one hostile request may take in all, whatever was freed again in between.
const hostileMemory = 16 << 20

// allocating runs a function and fails the test when it takes more memory than a hostile request may.
func allocating(t *testing.T, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > hostileMemory {
		t.Errorf("it took %d MiB of memory, want at most %d", took>>20, hostileMemory>>20)
	}
}

// raw writes a request by hand and reads what comes back. What the peer did not want to read is no failure.
func raw(t *testing.T, url, head string, write func(io.Writer) error) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		if _, err := io.WriteString(conn, head); err == nil && write != nil {
			_ = write(conn)
		}
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func readAll(t *testing.T, answer *http.Response) reply {
	t.Helper()
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Close { // which is how net/http tells of the header
		answer.Header.Set("Connection", "close")
	}
	return reply{status: answer.StatusCode, header: answer.Header, body: body}
}

// Row 40.
func TestControl9ABodyOfAGigabyteIsRefusedAfterAMegabyte(t *testing.T) {
	w := newWorld(t)
	head := "POST /v1/domains/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.Token + "\r\nContent-Type: application/json\r\n"
	block := bytes.Repeat([]byte("x"), 64<<10)
	stream := func(frame func(io.Writer) error) func(io.Writer) error {
		return func(conn io.Writer) error {
			for range 1 << 30 / len(block) {
				if err := frame(conn); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for name, one := range map[string]struct {
		head  string
		frame func(io.Writer) error
	}{
		"announced": {fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head, 1<<30), func(c io.Writer) error {
			_, err := c.Write(block)
			return err
		}},
		"in chunks": {head + "Transfer-Encoding: chunked\r\n\r\n", func(c io.Writer) error {
			_, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(block), block)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			allocating(t, func() {
				answer := readAll(t, raw(t, w.URL, one.head, stream(one.frame)))
				answer.wants(t, http.StatusRequestEntityTooLarge, "body-too-large")
				if answer.header.Get("Connection") != "close" {
					t.Error("the connection stays open for the rest")
				}
			})
		})
	}
}

func TestControl9ABodyOfJustTheLimitIsRead(t *testing.T) {
	w := newWorld(t)
	body := `{"domains":[{"name":"a.example"}]}`
	for padding, status := range map[int]int{0: http.StatusOK, 1: http.StatusRequestEntityTooLarge} {
		text := body + strings.Repeat(" ", httpapi.MaxBodyBytes-len(body)+padding)
		if answer := w.do(t, call{method: "POST", path: "/v1/domains/batch", token: w.Token, body: text}); answer.status != status {
			t.Errorf("%d bytes: got %d %s, want %d", len(text), answer.status, answer.body, status)
		}
	}
}

func TestControl9ASlowBodyHoldsAConnectionForALimitedTime(t *testing.T) {
	w, handler := newInProcess(t, func(c *httpapi.Config) { c.BodyTimeout = slowBody })
	server := httptest.NewServer(handler)
	defer server.Close()
	head := "POST /v1/domains/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.Token +
		"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
	answer := readAll(t, raw(t, server.URL, head+`{"domains":[`, nil))
	answer.wants(t, http.StatusRequestTimeout, "request-timeout")
	if answer.header.Get("Connection") != "close" {
		t.Error("the connection stays open")
	}
	// A handler that takes its time after a whole body is not hit by that deadline.
	whole := readAll(t, raw(t, server.URL, strings.Replace(head, "1000", "2", 1)+"{}", nil))
	whole.wants(t, http.StatusUnprocessableEntity, "invalid-request")
}

func TestControl9HeadersAndAddressesAreBounded(t *testing.T) {
	w := newWorld(t)
	for _, one := range []struct {
		name, path, reason string
		header             http.Header
		status             int
	}{
		{"one long header", "/v1/whoami", "header-too-large", http.Header{"X-Long": {strings.Repeat("x", httpapi.MaxHeaderBytes)}}, 431},
		{"many headers", "/v1/whoami", "header-too-large", http.Header{"X-Many": slicesOf("x", 4_000)}, 431},
		{"a long path", "/v1/domains/" + strings.Repeat("x", httpapi.MaxURIBytes), "uri-too-long", nil, 414},
		{"a long query", "/v1/domains?prefix=" + strings.Repeat("x", httpapi.MaxURIBytes), "uri-too-long", nil, 414},
		{"a long parameter", "/v1/domains/" + strings.Repeat("x", 300) + ".example", "invalid-request", nil, 400},
	} {
		t.Run(one.name, func(t *testing.T) {
			w.do(t, call{method: "GET", path: one.path, token: w.Token, header: one.header}).wants(t, one.status, one.reason)
		})
	}
	// net/http ends a head that goes on and on.
	head := "GET /v1/whoami HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Long: "+strings.Repeat("x", 1000)+"\r\n", 200) + "\r\n"
	if answer := raw(t, w.URL, head, nil); answer.StatusCode != 431 {
		t.Errorf("a head of 200 KB: got %d", answer.StatusCode)
	}
}

func slicesOf(text string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = text
	}
	return all
}

func TestControl9PagesAreBounded(t *testing.T) {
	w := newWorld(t)
	for _, op := range operations(t) {
		if op.declared.Parameters.GetByInAndName("query", "page_size") == nil {
			continue
		}
		for _, size := range []string{"0", "-1", "201", "1000000000", "99999999999999999999", "1.5", "x", ""} {
			answer := w.do(t, call{method: "GET", path: op.path + "?page_size=" + size, token: w.Token})
			fields := answer.problem(t).Errors
			if answer.status != http.StatusBadRequest || len(fields) != 1 || fields[0].Pointer != "query/page_size" || fields[0].Rule == "" {
				t.Errorf("%s with page_size=%s: got %d %s", op.id, size, answer.status, answer.body)
			}
		}
		w.do(t, call{method: "GET", path: op.path + "?page_size=200", token: w.Token}).wants(t, http.StatusOK, "")
	}
}

func TestControl9OneTokenAndOneAddressMakeSoManyRequests(t *testing.T) {
	w := newWorld(t, func(c *server.Config) { c.RequestsPerSecond = 2 }) // twelve at once, 48 from one address
	for left := 11; left >= 0; left-- {
		answer := w.do(t, whoami(w.Token))
		answer.wants(t, http.StatusOK, "")
		want := fmt.Sprintf(`"token";r=%d;t=%d`, left, (12-left+1)/2)
		if got := answer.header.Get("RateLimit"); got != want || answer.header.Get("RateLimit-Policy") != `"token";q=12;w=6` {
			t.Fatalf("RateLimit %s, want %s; policy %s", got, want, answer.header.Get("RateLimit-Policy"))
		}
	}
	refused := w.do(t, whoami(w.Token))
	refused.wants(t, http.StatusTooManyRequests, "rate-limited")
	if refused.header.Get("Retry-After") != "1" || refused.header.Get("RateLimit") != `"token";r=0;t=6` {
		t.Errorf("headers %v", refused.header)
	}
	w.clock.Advance(500 * time.Millisecond)
	w.do(t, whoami(w.Token)).wants(t, http.StatusOK, "")
	w.do(t, whoami(w.Token)).wants(t, http.StatusTooManyRequests, "rate-limited")
	// The address has used 15; strangers there get the rest, and what they may not do counts too.
	var statuses []int
	for range 40 {
		statuses = append(statuses, w.do(t, whoami("")).status)
	}
	counts := map[int]int{}
	for _, status := range statuses {
		counts[status]++
	}
	if counts[401] != 48-15+4 || counts[429] != 40-counts[401] {
		t.Errorf("statuses %v", counts)
	}
}
