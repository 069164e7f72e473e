package reason

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestEverySlugIsUniqueAndFoundAgain(t *testing.T) {
	seen := map[Slug]bool{}
	wellFormed := regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`)
	for _, r := range All() {
		if seen[r.Slug] {
			t.Errorf("%s is listed twice", r.Slug)
		}
		seen[r.Slug] = true
		if !wellFormed.MatchString(string(r.Slug)) {
			t.Errorf("%q is not a slug", r.Slug)
		}
		found, ok := Lookup(r.Slug)
		if !ok || !cmp.Equal(found, r) {
			t.Errorf("Lookup(%s) finds another row: %s", r.Slug, cmp.Diff(r, found))
		}
	}
	if _, ok := Lookup("no-such-reason"); ok {
		t.Error("Lookup finds what is not there")
	}
}

// TestTheDesignsReasonsAreAllThere keeps the promise that the registry holds
// the replies that the product was specified with.
func TestTheDesignsReasonsAreAllThere(t *testing.T) {
	cases := []struct {
		slug    Slug
		variant Variant
		want    string
	}{
		{slug: "ip-not-allowed", want: "550 5.7.1"},
		{slug: "ip-not-allowed", variant: WhenStale, want: "451 4.3.0"},
		{slug: "sender-domain-unknown", want: "550 5.7.1"},
		{slug: "sender-domain-unknown", variant: WhenStale, want: "451 4.3.0"},
		{slug: "sender-not-owned", want: "553 5.7.1"},
		{slug: "sender-address-bad", want: "553 5.1.7"},
		{slug: "recipient-address-bad", want: "553 5.1.3"},
		{slug: "relay-disabled", want: "550 5.7.1"},
		{slug: "relay-disabled", variant: ForUser, want: "525 5.7.13"},
		{slug: "relay-suspended", want: "450 4.7.1"},
		{slug: "relay-suspended", variant: Later, want: "550 5.7.1"},
		{slug: "quota-reached", want: "450 4.7.1"},
		{slug: "quota-reached", variant: ForUser, want: "550 5.7.1"},
		{slug: "quota-unavailable", want: "451 4.3.0"},
		{slug: "policy-stale", want: "451 4.3.0"},
		{slug: "malware", want: "554 5.7.1"},
		{slug: "spam", want: "554 5.7.1"},
		{slug: "bulk", want: "550 5.7.1"},
		{slug: "bulk", variant: FirstBurst, want: "450 4.7.1"},
		{slug: "content-rule", want: "554 5.7.1"},
		{slug: "scanner-unavailable", want: "451 4.7.1"},
		{slug: "message-too-large", want: "552 5.3.4"},
		{slug: "too-many-recipients", want: "452 4.5.3"},
		{slug: "recipient-suppressed", want: "550 5.7.1"},
		{slug: "recipient-null-mx", want: "556 5.1.10"},
		{slug: "recipient-domain-unknown", want: "550 5.1.2"},
		{slug: "auth-required", want: "530 5.7.0"},
		{slug: "tls-required", want: "530 5.7.0"},
		{slug: "auth-failed", want: "535 5.7.8"},
		{slug: "auth-failed", variant: BackendDown, want: "454 4.7.0"},
		{slug: "rate-limited", want: "450 4.7.1"},
		{slug: "rate-limited", variant: AtConnect, want: "421 4.7.0"},
		{slug: "queue-full", want: "452 4.3.1"},
		{slug: "disk-trouble", want: "451 4.3.0"},
		{slug: "routing-loop", want: "554 5.4.6"},
		{slug: "bare-newline", want: "550 5.5.2"},
		{slug: "bad-header", want: "550 5.6.0"},
		{slug: "delivery-expired", want: "0 5.4.7"},
	}
	for _, c := range cases {
		r, ok := Lookup(c.slug)
		if !ok {
			t.Errorf("%s is missing", c.slug)
			continue
		}
		code, _ := r.Under(c.variant)
		if got := fmt.Sprintf("%d %s", code.SMTP, code.Enhanced); got != c.want {
			t.Errorf("%s under %q is %s, want %s", c.slug, c.variant, got, c.want)
		}
	}
}

func TestCodesAgreeWithTheirEnhancedClassAndWithRetry(t *testing.T) {
	for _, r := range All() {
		for _, v := range variantsOf(r) {
			code, _ := r.Under(v)
			if code.SMTP == 0 {
				continue
			}
			if code.SMTP < 400 || code.SMTP > 599 || code.SMTP/100 != code.Enhanced[0] {
				t.Errorf("%s under %q: code %d with enhanced code %s", r.Slug, v, code.SMTP, code.Enhanced)
			}
			if r.RetryUnder(v) != (code.SMTP < 500) {
				t.Errorf("%s under %q: retry %v with code %d", r.Slug, v, r.RetryUnder(v), code.SMTP)
			}
		}
		if r.Reply.SMTP != 0 && r.Retry != (r.Reply.SMTP < 500) {
			t.Errorf("%s: retry %v with code %d", r.Slug, r.Retry, r.Reply.SMTP)
		}
		if r.Scope == ScopePlatform && !r.Retry {
			t.Errorf("%s: our own trouble is answered for good", r.Slug)
		}
	}
}

func variantsOf(r Reason) []Variant {
	all := []Variant{Ordinary}
	for _, alt := range r.Alternatives {
		all = append(all, alt.When)
	}
	return all
}

// RFC 4954 6: mail programs throw the password away on 535.
func TestOnlyBadCredentialsAreAnswered535(t *testing.T) {
	for _, r := range All() {
		for _, v := range variantsOf(r) {
			if code, _ := r.Under(v); code.SMTP == 535 && r.Slug != AuthFailed {
				t.Errorf("%s is answered 535", r.Slug)
			}
		}
	}
}

func TestEveryRowIsWhole(t *testing.T) {
	for _, r := range All() {
		if r.Title == "" || r.Sentence == "" || r.Explanation == "" || len(r.Stages) == 0 {
			t.Errorf("%s lacks title, sentence, explanation or stage", r.Slug)
		}
		if r.Scope == "" || r.Exit == 0 {
			t.Errorf("%s lacks scope or exit code", r.Slug)
		}
		if strings.HasSuffix(r.Sentence, ".") {
			t.Errorf("%s: the sentence ends with a full stop, which joins badly", r.Slug)
		}
		overAPI := false
		for _, stage := range r.Stages {
			overAPI = overAPI || stage == StageAPI
		}
		if overAPI && r.HTTPStatus < 400 {
			t.Errorf("%s is said by the API without a status", r.Slug)
		}
		if !overAPI && r.Reply == (Code{}) {
			t.Errorf("%s is said by nobody", r.Slug)
		}
		if r.Charged && !cmp.Equal(r.Stages, []Stage{StageDSN}) {
			t.Errorf("%s is charged although the message was refused", r.Slug)
		}
	}
}

func TestEveryPlaceholderIsAnArgument(t *testing.T) {
	placeholder := regexp.MustCompile(`\{([^}]*)\}`)
	for _, r := range All() {
		for _, v := range variantsOf(r) {
			_, sentence := r.Under(v)
			for _, m := range placeholder.FindAllStringSubmatch(sentence, -1) {
				if argument(m[1], Args{}) == "" {
					t.Errorf("%s names the unknown argument %q", r.Slug, m[1])
				}
			}
		}
	}
}

func TestTheRegistryIsAsAgreed(t *testing.T) {
	var b strings.Builder
	for _, r := range All() {
		fmt.Fprintf(&b, "%s\n  stages %v, scope %s, http %d, exit %d, retry %v, charged %v, contact %v\n",
			r.Slug, r.Stages, r.Scope, r.HTTPStatus, r.Exit, r.Retry, r.Charged, r.NamesContact)
		for _, v := range variantsOf(r) {
			code, sentence := r.Under(v)
			name := string(v)
			if v == Ordinary {
				name = "ordinary"
			}
			fmt.Fprintf(&b, "  %-8s %d %s %s\n", name, code.SMTP, code.Enhanced, sentence)
		}
		fmt.Fprintf(&b, "  means    %s: %s\n", r.Title, r.Explanation)
	}
	const golden = "testdata/registry.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("the registry changed; if that is meant, run with -update (-want +got):\n%s", diff)
	}
}
