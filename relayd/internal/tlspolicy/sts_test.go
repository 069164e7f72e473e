package tlspolicy

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestExactlyOneRecordWithAnIDCounts(t *testing.T) {
	for _, c := range []struct {
		txt  []string
		want string
	}{
		{txt: []string{"v=STSv1; id=20261122T0900;"}, want: "20261122T0900"},
		{txt: []string{"v=STSv1;id=a1"}, want: "a1"},
		{txt: []string{"v=spf1 -all", "v=STSv1 ; id = a1 ; x=y", "other"}, want: "a1"},
		{txt: nil},
		{txt: []string{"v=spf1 -all"}},
		{txt: []string{"v=STSv1; id=a1", "v=STSv1; id=a2"}},
		{txt: []string{"v=STSv1;"}},
		{txt: []string{"v=STSv1; id="}},
		{txt: []string{"v=STSv1; id=a-1"}},
		{txt: []string{"v=STSv1; id=" + strings.Repeat("a", 33)}},
		{txt: []string{"v=STSv2; id=a1"}},
		{txt: []string{"id=a1; v=STSv1"}},
	} {
		got, err := recordID(c.txt)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: got %q (%v), want %q", c.txt, got, err, c.want)
		}
	}
}

func TestAPolicyIsReadAsRFC8461WritesIt(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	text := "version: STSv1\r\nmode: enforce\r\nmx: mail.Example.com\r\nmx: *.example.net\nmx:backup.example.com\r\nmax_age: 604800\r\nmode: none\r\nnew_key: x\r\n"
	p, err := parsePolicy(text, "a1", now)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Enforced() || p.Tested() || p.ID != "a1" || !p.Fetched.Equal(now) || !p.Expires.Equal(now.Add(7*24*time.Hour)) {
		t.Errorf("got %+v", p)
	}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.example.com.": true, "backup.example.com": true, "mx.example.net": true,
		"example.net": false, "a.b.example.net": false, "mail.example.org": false, "example.com": false, "": false, "net": false,
	} {
		if p.Names(host) != want {
			t.Errorf("names %q: %v, want %v", host, !want, want)
		}
	}
	if long, err := parsePolicy("version: STSv1\nmode: none\nmax_age: 9999999999", "a", now); err != nil || long.Expires.After(now.AddDate(1, 0, 1)) {
		t.Errorf("a policy for 317 years: %+v %v", long, err)
	}
}

func TestATextThatIsNoPolicyIsRefused(t *testing.T) {
	good := "version: STSv1\nmode: enforce\nmx: mx.y.test\nmax_age: 100\n"
	for name, change := range map[string][2]string{
		"another version": {"STSv1", "STSv2"}, "no version": {"version: STSv1\n", ""}, "unknown mode": {"enforce", "report"},
		"no mode": {"mode: enforce\n", ""}, "no hosts": {"mx: mx.y.test\n", ""}, "no age": {"max_age: 100\n", ""},
		"negative age": {"100", "-1"}, "age in words": {"100", "long"}, "host with a star inside": {"mx.y.test", "mx.*.test"},
		"only a star": {"mx.y.test", "*."}, "host with a blank": {"mx.y.test", "mx y"}, "a line without a key": {"mode", "<html>\nmode"},
		"no hosts, in testing": {"mode: enforce\nmx: mx.y.test\n", "mode: testing\n"},
		"too many hosts":       {"mx: mx.y.test\n", strings.Repeat("mx: mx.y.test\n", maxPatterns+1)},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if _, err := parsePolicy(text, "a1", time.Now()); !errors.Is(err, errPolicy) {
			t.Errorf("%s: %v for %.60q", name, err, text)
		}
	}
	if _, err := parsePolicy(good, "a1", time.Now()); err != nil {
		t.Errorf("the model itself: %v", err)
	}
}

func FuzzPoliciesOfStrangers(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: *.y.test\nmax_age: 100\n", "v=STSv1; id=a1;")
	f.Add("version:STSv1\r\nmode:none\r\nmax_age:0", "v=STSv1")
	f.Fuzz(func(t *testing.T, text, record string) {
		if id, err := recordID([]string{record}); err == nil && !isID(id) {
			t.Errorf("id %q", id)
		}
		now := time.Unix(0, 0)
		p, err := parsePolicy(text, "a1", now)
		if err != nil {
			return
		}
		if p.Expires.Sub(now) > maxAgeSeconds*time.Second || p.Mode != ModeNone && len(p.MX) == 0 {
			t.Errorf("got %+v", p)
		}
		for _, pattern := range p.MX {
			host := strings.Replace(pattern, "*", "a", 1)
			if !p.Names(host) {
				t.Errorf("%q does not name %q", pattern, host)
			}
		}
	})
}
