package profile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"activerelay/cli/internal/failure"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const contexts = `# my servers
current-context: demo
contexts:
  demo:
    url: https://demo.example.com  # the demo
    token: rly_demo
  other:
    url: https://other.example.com
    token-file: TOKENFILE
output: yaml
columns: [a, b]
commands:
  domain list:
    page-size: 20
`

func TestAFileIsReadWithItsLines(t *testing.T) {
	file, err := Load(write(t, contexts, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Path: file.Path, Current: "demo",
		Contexts: map[string]Context{
			"demo":  {URL: "https://demo.example.com", Token: "rly_demo"},
			"other": {URL: "https://other.example.com", TokenFile: "TOKENFILE"},
		},
		Settings: map[string]string{"output": "yaml", "columns": "a,b"},
		Commands: map[string]map[string]string{"domain list": {"page-size": "20"}},
		Lines:    map[string]int{"output": 10, "columns": 11, "domain list": 14, "domain list.page-size": 14},
	}
	if diff := cmp.Diff(want, file); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestABadFileIsRefusedWithItsLine(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"unknown key of a context", "contexts:\n  a:\n    ulr: x\n", `:3: unknown key "ulr"; choose from url, token, token-file, ca-file`},
		{"context that is a text", "contexts:\n  a: x\n", ":2: context a must be a mapping"},
		{"setting that is a mapping", "output:\n  a: b\n", ": output takes one value"},
		{"twice", "output: a\noutput: b\n", "output"},
		{"no YAML", "a: [\n", ""},
		{"a list", "- a\n", ":1: the file must be a mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.text, 0o600)
			_, err := Load(path)
			if failure.CodeOf(err) != failure.Usage || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a usage error with %q and the file", err, c.says)
			}
		})
	}
}

// Control 24: the configuration is 0600.
func TestAFileWithATokenThatOthersCanReadIsRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		ok   bool
	}{
		{contexts, 0o600, true},
		{contexts, 0o640, false},
		{"token: rly_x\n", 0o604, false},
		{"output: json\n", 0o644, true},
	} {
		path := write(t, c.text, c.mode)
		if err := os.Chmod(path, c.mode); err != nil { // past the umask
			t.Fatal(err)
		}
		if _, err := Load(path); (err == nil) != c.ok {
			t.Errorf("mode %04o: %v", c.mode, err)
		}
	}
}

func TestSavingKeepsTheRestAndIsForTheOwnerOnly(t *testing.T) {
	path := write(t, contexts, 0o600)
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	file.Contexts["new"] = Context{URL: "https://new.example.com", Token: "rly_new"}
	delete(file.Contexts, "other")
	file.Current = "new"
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Lines, file.Lines = nil, nil
	if diff := cmp.Diff(file, again); diff != "" {
		t.Errorf("-saved +read:\n%s", diff)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "# my servers") {
		t.Errorf("the comment is lost (%v):\n%s", err, text)
	}
}

func TestTheFirstSaveMakesDirectoryAndFileForTheOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "relayctl", "config.yaml")
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	file.Contexts["a"], file.Current = Context{URL: "https://a.example", Token: "rly_a"}, "a"
	if err := file.Save(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", name, info.Mode().Perm(), want)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".config-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestWhoNamesServerAndTokenFirstWins(t *testing.T) {
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("rly_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Load(write(t, strings.Replace(contexts, "TOKENFILE", tokenFile, 1), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	const demo, other = "https://demo.example.com", "https://other.example.com"
	for _, c := range []struct {
		name       string
		flags, env Source
		stdin      string
		url, token string
	}{
		{name: "the context in use", url: demo, token: "rly_demo"},
		{name: "a named context with a token file", flags: Source{Context: "other"}, url: other, token: "rly_file"},
		{name: "the environment's context", env: Source{Context: "other"}, url: other, token: "rly_file"},
		{name: "environment over the context in use", env: Source{URL: "https://e", Token: "rly_env"}, url: "https://e", token: "rly_env"},
		{name: "a named context over the environment", flags: Source{Context: "other"}, env: Source{URL: "https://e", Token: "rly_env"}, url: other, token: "rly_file"},
		{name: "flags over all", flags: Source{Context: "other", URL: "https://f", Token: "rly_flag"}, env: Source{URL: "https://e", Token: "rly_env"}, url: "https://f", token: "rly_flag"},
		{name: "a token file flag over the environment's token", flags: Source{TokenFile: tokenFile}, env: Source{Token: "rly_env"}, url: demo, token: "rly_file"},
		{name: "standard input", flags: Source{Token: "-"}, stdin: " rly_in\n", url: demo, token: "rly_in"},
		{name: "a token file that is standard input", flags: Source{TokenFile: "-"}, stdin: "rly_in", url: demo, token: "rly_in"},
		{name: "the environment's token for the context's server", env: Source{Token: "rly_env"}, url: demo, token: "rly_env"},
		{name: "a context's token goes to its own server only", flags: Source{URL: "https://evil.example"}, url: "https://evil.example", token: ""},
		{name: "nor where the environment points", env: Source{URL: "https://evil.example"}, url: "https://evil.example", token: ""},
		{name: "the same server with a slash", flags: Source{URL: demo + "/"}, url: demo + "/", token: "rly_demo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, err := file.Resolve(c.flags, c.env, strings.NewReader(c.stdin))
			if err != nil {
				t.Fatal(err)
			}
			if target.URL != c.url || target.Token != c.token {
				t.Errorf("got %s with token %q, want %s with %q", target.URL, target.Token, c.url, c.token)
			}
		})
	}
}

func TestWithoutAnyConfigurationItIsTheLocalServerWithoutAToken(t *testing.T) {
	file, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	target, err := file.Resolve(Source{}, Source{}, strings.NewReader(""))
	if err != nil || target.URL != DefaultURL || target.Token != "" {
		t.Errorf("got %+v, %v", target, err)
	}
	if _, err := file.Resolve(Source{Context: "x"}, Source{}, nil); failure.CodeOf(err) != failure.Usage {
		t.Errorf("an unknown context: got %v, want a usage error", err)
	}
}

func TestATokenThatCannotBeOneIsRefusedWithoutShowingIt(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(binary, []byte("rly_\x00sec ret"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := &File{}
	for _, c := range []struct {
		name   string
		source Source
		code   failure.Code
		says   string
	}{
		{"empty", Source{Token: "-"}, failure.Auth, "the token from --token is empty"},
		{"no file", Source{TokenFile: filepath.Join(t.TempDir(), "none")}, failure.Usage, "--token-file: "},
		{"another one", Source{TokenFile: binary}, failure.Auth, "the token from --token-file holds characters"},
	} {
		_, err := file.Resolve(c.source, Source{}, strings.NewReader(" \n"))
		if failure.CodeOf(err) != c.code || strings.Contains(err.Error(), "sec ret") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v with code %d, want %q with %d", c.name, err, failure.CodeOf(err), c.says, c.code)
		}
	}
}

func TestTheFileIsFoundWhereXDGSays(t *testing.T) {
	for _, c := range []struct {
		name, asked string
		env         map[string]string
		want        string
	}{
		{"asked for", "/a.yaml", map[string]string{"RELAYCTL_CONFIG": "/b.yaml"}, "/a.yaml"},
		{"environment", "", map[string]string{"RELAYCTL_CONFIG": "/b.yaml", "HOME": "/h"}, "/b.yaml"},
		{"XDG", "", map[string]string{"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/relayctl/config.yaml"},
		{"a relative XDG is ignored", "", map[string]string{"XDG_CONFIG_HOME": "x", "HOME": "/h"}, "/h/.config/relayctl/config.yaml"},
	} {
		got, err := Path(c.asked, func(name string) string { return c.env[name] })
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	if _, err := Path("", func(string) string { return "" }); failure.CodeOf(err) != failure.Usage {
		t.Errorf("no home: got %v, want a usage error", err)
	}
}
