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
	// TokenFrom says where the token was found: "--token", "RELAYCTL_TOKEN",
	// "context acme"; URLFrom where the URL was, empty for the default.
	TokenFrom, URLFrom string
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
	context := "context " + target.Context
	ladder := []rung{
		{Source: flags, url: "--url", token: "--token", file: "--token-file"},
		{Source: env, url: "RELAYCTL_URL", token: "RELAYCTL_TOKEN", file: "RELAYCTL_TOKEN_FILE"},
		{Source: named, url: context, token: context, file: context + ": token-file", tied: true},
		{Source: f.own(), url: f.Path, token: f.Path + ": token", file: f.Path + ": token-file", tied: true},
	}
	if flags.Context != "" {
		ladder[1], ladder[2] = ladder[2], ladder[1]
	}
	for _, r := range ladder {
		if target.URL == "" && r.URL != "" {
			target.URL, target.URLFrom = r.URL, r.url
		}
		target.CAFile = cmp.Or(target.CAFile, r.CAFile)
	}
	target.URL = cmp.Or(target.URL, DefaultURL)
	for _, r := range ladder {
		if r.Token == "" && r.TokenFile == "" || r.tied && r.URL != "" && !sameServer(r.URL, target.URL) {
			continue
		}
		target.Token, target.TokenFrom, err = r.read(stdin)
		return target, err
	}
	return target, nil
}

// rung is a source in the order of precedence. The token of a tied one is for
// the server that the same source names.
type rung struct {
	Source
	// url, token and file are what people call the three members.
	url, token, file string
	tied             bool
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

// read reads the token and says where it was; a file that is named wins over
// nothing, and "-" is standard input.
func (r rung) read(stdin io.Reader) (token, from string, err error) {
	var text []byte
	from = r.token
	if r.Token == "" {
		from = r.file
	}
	switch {
	case cmp.Or(r.Token, r.TokenFile) == "-":
		text, err = io.ReadAll(io.LimitReader(stdin, 64<<10))
	case r.Token != "":
		text = []byte(r.Token)
	default:
		text, err = os.ReadFile(r.TokenFile)
	}
	if err != nil {
		return "", from, &failure.Error{Code: failure.Usage, Detail: from + ": " + err.Error(), Cause: err}
	}
	token = strings.TrimSpace(string(text))
	if token == "" {
		return "", from, &failure.Error{Code: failure.Auth, Detail: "the token from " + from + " is empty"}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", from, &failure.Error{Code: failure.Auth, Detail: "the token from " + from + " holds characters that no token has; is it the right file?"}
	}
	return token, from, nil
}
