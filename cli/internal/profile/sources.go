package profile

import (
	"cmp"
	"io"
	"os"
	"strings"

	"activerelay/cli/internal/failure"
)

// DefaultURL is where relay-server listens when nobody says otherwise.
const DefaultURL = "http://127.0.0.1:8080"

// Source is one place that may name a server and a token.
type Source struct {
	URL       string
	Token     string
	TokenFile string
	CAFile    string
	// Context names a context of the file that fills in what is missing here.
	Context string
}

// Target is the server to talk to and the token for it.
type Target struct {
	URL    string
	Token  string
	CAFile string
	// Context is the name of the context that was used, or empty.
	Context string
}

// Resolve finds server and token. Each is taken from the first of
//
//  1. flags: --url, --token or --token-file;
//  2. the context that --context names;
//  3. the environment: RELAYCTL_URL, RELAYCTL_TOKEN or RELAYCTL_TOKEN_FILE;
//  4. the context that RELAYCTL_CONTEXT or the file's current-context names;
//  5. the file's own url, token and token-file.
//
// The token of a context is sent to the URL of that context and nowhere else:
// with --url pointing to another server it is as if the context had none.
// stdin is read when a token is "-" or a token file is "-".
func (f *File) Resolve(flags, env Source, stdin io.Reader) (Target, error) {
	target := Target{Context: cmp.Or(flags.Context, env.Context, f.Current)}
	named, err := f.named(target.Context)
	if err != nil {
		return Target{}, err
	}
	ladder := []rung{{Source: flags}, {Source: env}, {Source: named, tied: true}, {Source: f.own(), tied: true}}
	if flags.Context != "" {
		ladder[1], ladder[2] = ladder[2], ladder[1]
	}
	for _, r := range ladder {
		target.URL = cmp.Or(target.URL, r.URL)
		target.CAFile = cmp.Or(target.CAFile, r.CAFile)
	}
	target.URL = cmp.Or(target.URL, DefaultURL)
	for _, r := range ladder {
		if r.Token == "" && r.TokenFile == "" || r.tied && r.URL != "" && !sameServer(r.URL, target.URL) {
			continue
		}
		target.Token, err = r.token(stdin)
		return target, err
	}
	return target, nil
}

// rung is a source in the order of precedence. The token of a tied one is for
// the server that the same source names.
type rung struct {
	Source
	tied bool
}

// own is what the file says outside its contexts.
func (f *File) own() Source {
	return Source{
		URL: f.Settings["url"], Token: f.Settings["token"], TokenFile: f.Settings["token-file"], CAFile: f.Settings["ca-file"],
	}
}

func (f *File) named(context string) (Source, error) {
	if context == "" {
		return Source{}, nil
	}
	c, err := f.Context(context)
	return Source{URL: c.URL, Token: c.Token, TokenFile: c.TokenFile, CAFile: c.CAFile}, err
}

func sameServer(a, b string) bool {
	return strings.TrimRight(a, "/") == strings.TrimRight(b, "/")
}

// token reads the token; a file that is named wins over nothing, and "-" is
// standard input.
func (s Source) token(stdin io.Reader) (string, error) {
	var text []byte
	var err error
	switch {
	case s.Token == "-", s.Token == "" && s.TokenFile == "-":
		text, err = io.ReadAll(io.LimitReader(stdin, 64<<10))
	case s.Token != "":
		text = []byte(s.Token)
	default:
		text, err = os.ReadFile(s.TokenFile)
	}
	if err != nil {
		return "", &failure.Error{Code: failure.Auth, Detail: "reading the token: " + err.Error(), Cause: err}
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", &failure.Error{Code: failure.Auth, Detail: "the token is empty"}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &failure.Error{Code: failure.Auth, Detail: "the token holds characters that no token has; is it the right file?"}
	}
	return token, nil
}
