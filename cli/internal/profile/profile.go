// Package profile knows where relayctl's settings come from: the configuration
// file with its contexts, the environment, and what was said on the command
// line.
//
// The file is YAML, written with mode 0600 because contexts hold tokens:
//
//	current-context: demo
//	contexts:
//	  demo:
//	    url: https://relay.example.com
//	    token: rly_operator_…      # or token-file: /path
//	output: table                  # any flag that every command has
//	commands:
//	  domain list:                 # any flag of one command
//	    page-size: "200"
//
// Who wins for an ordinary flag: the command line, then the environment
// (RELAYCTL_OUTPUT; RELAYCTL_DOMAIN_LIST_PAGE_SIZE), then the file. Server and
// token have sources of their own, in sources.go. Anything in the file that
// nothing reads is an error that names line, key and choices: a mistyped key
// must not look as if it worked.
package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"activerelay/cli/internal/failure"
)

// Context is a server with the credential for it.
type Context struct {
	URL       string `yaml:"url"`
	Token     string `yaml:"token,omitempty"`
	TokenFile string `yaml:"token-file,omitempty"`
	CAFile    string `yaml:"ca-file,omitempty"`
}

// File is a configuration file, read.
type File struct {
	// Path is where it is, or will be when it is first written.
	Path string
	// Missing says that there is no such file yet.
	Missing bool
	Current string
	// Contexts by name.
	Contexts map[string]Context
	// Settings are flags that every command has, by name.
	Settings map[string]string
	// Commands are flags of single commands: words of the command, then name.
	Commands map[string]map[string]string
	// Lines say where a setting stands: "output", "domain list.page-size".
	Lines map[string]int
}

// Path returns the place of the configuration file: what was asked for, else
// RELAYCTL_CONFIG, else relayctl/config.yaml in the XDG configuration
// directory.
func Path(asked string, getenv func(string) string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	if path := getenv("RELAYCTL_CONFIG"); path != "" {
		return path, nil
	}
	if directory := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(directory) {
		return filepath.Join(directory, "relayctl", "config.yaml"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", failure.Usagef("no HOME and no XDG_CONFIG_HOME: say --config FILE")
	}
	return filepath.Join(home, ".config", "relayctl", "config.yaml"), nil
}

// Load reads the file; one that does not exist is empty.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{Path: path, Missing: true, Contexts: map[string]Context{}}, nil
	}
	if err != nil {
		return nil, failure.Usagef("reading the configuration: %v", err)
	}
	file, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	return file, file.private()
}

// private refuses a file with a token in it that other users may read.
func (f *File) private() error {
	info, err := os.Stat(f.Path)
	if err != nil {
		return fmt.Errorf("reading the mode of %s: %w", f.Path, err)
	}
	holdsToken := f.Settings["token"] != "" || slices.ContainsFunc(slices.Collect(maps.Values(f.Contexts)), func(c Context) bool { return c.Token != "" })
	if holdsToken && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return &failure.Error{
			Code:   failure.Usage,
			Detail: fmt.Sprintf("%s holds a token and is open to other users (mode %04o)", f.Path, info.Mode().Perm()),
			Next:   "chmod 600 " + f.Path,
		}
	}
	return nil
}

// Context returns the named context.
func (f *File) Context(name string) (Context, error) {
	if context, known := f.Contexts[name]; known {
		return context, nil
	}
	known := strings.Join(slices.Sorted(maps.Keys(f.Contexts)), ", ")
	if known == "" {
		known = "none"
	}
	return Context{}, &failure.Error{
		Code:   failure.Usage,
		Detail: fmt.Sprintf("no context %q in %s (it has: %s)", name, f.Path, known),
		Next:   "relayctl login --url URL --context " + name,
	}
}
