package smtpd

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/api/admit"

	"pgregory.net/rapid"
)

// anyParts cuts a text as a network may.
func anyParts(t *rapid.T, text string) []string {
	var parts []string
	for len(text) > 0 {
		n := rapid.IntRange(1, len(text)).Draw(t, "part")
		parts, text = append(parts, text[:n]), text[n:]
	}
	return parts
}

func anyLines(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"\r", "\n", ".", "a", "\x00", "\r\n"}), 0, 12).Draw(t, "text"), "")
}

func TestNormalisedTextIsRegularAndDoesNotDependOnHowItWasCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyLines(t)
		fix := func(parts []string) string {
			n, out := newlines{normalise: true}, bytes.Buffer{}
			for _, part := range parts {
				out.Write(n.fix([]byte(part)))
			}
			out.Write(n.finish())
			return out.String()
		}
		whole, cut := fix([]string{in}), fix(anyParts(t, in))
		if whole != cut {
			t.Fatalf("%q became %q whole and %q in parts", in, whole, cut)
		}
		if strings.ContainsAny(strings.ReplaceAll(whole, "\r\n", ""), "\r\n\x00") {
			t.Fatalf("%q became %q", in, whole)
		}
	})
}

func TestRegularTextPassesUnchangedAndIrregularTextIsNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyLines(t)
		regular := !strings.ContainsAny(strings.ReplaceAll(in, "\r\n", ""), "\r\n\x00")
		n, out := newlines{}, bytes.Buffer{}
		for _, part := range anyParts(t, in) {
			out.Write(n.fix([]byte(part)))
		}
		out.Write(n.finish())
		if n.broken == regular {
			t.Fatalf("%q: broken is %v", in, n.broken)
		}
		if got := out.String(); regular && got != in && got != in+"\r\n" {
			t.Fatalf("%q became %q", in, got)
		}
	})
}

func TestHeaderFindsEveryFromThatAnotherReaderCouldFind(t *testing.T) {
	cases := []struct {
		text  string
		froms int
		fault string
	}{
		{text: "From: a@b.c\r\n\r\nFrom: body\r\n", froms: 1},
		{text: "fRoM\t : a@b.c\r\n\r\n", froms: 1},
		{text: "From:\r\n a@b.c\r\n\r\n", froms: 1},
		{text: "X: y\r\n \r\nFrom: a@b.c\r\nFrom: d@e.f\r\n\r\n", froms: 2, fault: "it has 2 From fields"},
		{text: " From: a@b.c\r\n\r\n", fault: "it begins with a continuation line"},
		{text: "From: a@b.c", froms: 1},
		{text: "", fault: "it has no From field"},
		{text: "no colon\r\n\r\n", fault: "it has a line that is no field"},
		{text: "From a@b.c Mon Jan 1\r\nFrom: a@b.c\r\n\r\n", fault: "it has a line that is no field"},
		{text: ": empty name\r\n\r\n", fault: "it has a line that is no field"},
		{text: strings.Repeat("X: y\r\n", maxHeaderFields+1) + "\r\n", fault: "it has more than 2000 fields"},
		{text: "X: " + strings.Repeat("y", maxHeaderBytes) + "\r\n\r\n", fault: "it is longer than 262144 bytes"},
	}
	for _, test := range cases {
		h := header{}
		for part := range bytes.Lines([]byte(test.text)) {
			h.feed(part[:len(part)/2])
			h.feed(part[len(part)/2:])
		}
		if fault := h.finish(); fault != test.fault || h.froms != test.froms {
			t.Errorf("%.60q: fault %q with %d From fields, want %q with %d", test.text, fault, h.froms, test.fault, test.froms)
		}
	}
}

// plainHeader reads a header in the way that is easiest to check: fields unfolded one after the other.
func plainHeader(text string) (fields []admit.Field, fault string) {
	var unfolded []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			break
		}
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			unfolded = append(unfolded, line)
			continue
		}
		if len(unfolded) == 0 {
			return nil, "it begins with a continuation line"
		}
		unfolded[len(unfolded)-1] += line
	}
	for _, field := range unfolded {
		name, value, found := strings.Cut(field, ":")
		name = strings.TrimRight(name, " \t")
		if !found || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fields, "it has a line that is no field"
		}
		fields = append(fields, admit.Field{Name: strings.ToLower(name), Value: value})
	}
	return fields, ""
}

func TestHeaderIsReadAlikeHoweverItWasCut(t *testing.T) {
	pieces := []string{
		"From", "frOM", "List-Id", "list-", "Precedence", "Auto-Submitted", "Received", "X-Odd", ":", ":", " ", "\t", "\xfc", "value", "\r\n", "\r\n", "\r\n ",
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 20).Draw(t, "text"), "")
		want, fault := plainHeader(text)
		froms, received := 0, 0
		want = slices.DeleteFunc(want, func(f admit.Field) bool {
			if f.Name == "received" {
				received++
			}
			if f.Name == "from" {
				froms++
			}
			return !kept([]byte(f.Name))
		})
		h := header{}
		for range 2 { // the second reuses the memory of the first
			h.reset()
			for _, part := range anyParts(t, text) {
				h.feed([]byte(part))
			}
			h.finish()
			if h.fault != fault || fault == "" && (h.froms != froms || h.received != received || !slices.Equal(h.fields, want)) {
				t.Fatalf("%q: got %q, %d From, %d Received, %q; want %q, %d, %d, %q",
					text, h.fault, h.froms, h.received, h.fields, fault, froms, received, want)
			}
			if eight := strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f }); h.eightBit != eight {
				t.Fatalf("%q: eight bits: %v", text, h.eightBit)
			}
		}
	})
}

func TestBucketsLetABurstPassAndThenAskToWait(t *testing.T) {
	b, now := newBuckets(60), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for range 60 {
		if wait := b.take("a", now); wait != 0 {
			t.Fatalf("told to wait %s within the burst", wait)
		}
	}
	if wait := b.take("a", now); wait != time.Second {
		t.Errorf("told to wait %s, want 1s", wait)
	}
	if wait := b.take("b", now); wait != 0 {
		t.Errorf("another key is told to wait %s", wait)
	}
	if wait := b.take("a", now.Add(2*time.Second)); wait != 0 {
		t.Errorf("told to wait %s after the time has passed", wait)
	}
}

func TestHeloIsSafeToWrite(t *testing.T) {
	for in, want := range map[string]string{
		"mail.example.com": "mail.example.com", "[192.0.2.1]": "[192.0.2.1]", "": "unknown",
		"a\r\nb<>(x)": "a??b???x?", strings.Repeat("a", 300): strings.Repeat("a", 255),
	} {
		if got := cleanHelo(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestRoomOnTheDiskIsRememberedForAMomentAndOnlyForWhatWasAskedFor(t *testing.T) {
	e := startEdge(t, nil)
	var asked atomic.Int64
	var failure atomic.Value
	e.faults.Store(func(op, _ string) error {
		if op != "statfs" {
			return nil
		}
		asked.Add(1)
		err, _ := failure.Load().(error)
		return err
	})
	var r room
	began := time.Now()
	for range 1000 {
		e.must(r.check(e.spool, 1000, 1<<20))
	}
	if limit := 1 + int64(time.Since(began)/roomMemory); asked.Load() > limit {
		t.Errorf("the kernel was asked %d times, want at most %d", asked.Load(), limit)
	}
	failure.Store(syscall.EIO)
	if err := r.check(e.spool, 2<<20, 1<<20); !errors.Is(err, syscall.EIO) {
		t.Errorf("a larger message than was asked about found %v, want EIO", err)
	}
	r.until = time.Time{}
	if err := r.check(e.spool, 1000, 1<<20); !errors.Is(err, syscall.EIO) {
		t.Errorf("when the moment is over there is %v, want EIO", err)
	}
}
