// Package setting is the one way in which the programs are configured, so that who knows one knows all: every setting is a
// flag, an environment variable and a key of the YAML file, all of the same name, in that order of precedence.
//
//	--tls-listen 0.0.0.0:465      RELAYD_TLS_LISTEN=0.0.0.0:465      tls-listen: 0.0.0.0:465
//
// A mistake is answered with its place (the flag, the variable, or file and line), what is wrong and what is possible. An
// unknown key is a mistake: a typing error must not silently leave a default in force.
package setting

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// Set is the settings of one program. Define them through Flags, then call Load once.
type Set struct {
	// Flags holds every setting; its usage texts are the reference.
	Flags *pflag.FlagSet
	// FileFlag is the flag that names the YAML file.
	FileFlag string
	prefix   string
	secret   map[string]bool
}

// New starts the settings of a program whose environment variables begin with prefix, e.g. RELAYD.
func New(program, prefix string) *Set {
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	set := &Set{Flags: flags, FileFlag: "config", prefix: prefix, secret: map[string]bool{}}
	flags.String(set.FileFlag, "", "YAML `file` with settings under the names of the flags")
	return set
}

// Secret marks a setting whose value must not be shown, not even in an error.
func (s *Set) Secret(name string) { s.secret[name] = true }

// Choice defines a setting that takes one of a few words.
func (s *Set) Choice(target *string, name, value string, choices []string, usage string) {
	*target = value
	s.Flags.Var(&choice{target: target, choices: choices}, name, usage+" ("+strings.Join(choices, ", ")+")")
}

// Variable answers the environment variable of a setting.
func (s *Set) Variable(name string) string {
	return s.prefix + "_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Load sets every setting from its flag, else its environment variable, else the file, else its default. The arguments that
// are no flags are left in Flags.Args. It answers every mistake it finds, not only the first.
func (s *Set) Load(args []string, getenv func(string) string) error {
	if err := s.Flags.Parse(args); err != nil {
		return s.flagError(err)
	}
	given := map[string]bool{}
	s.Flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	var mistakes []error
	s.Flags.VisitAll(func(f *pflag.Flag) {
		value := getenv(s.Variable(f.Name))
		if given[f.Name] || value == "" {
			return
		}
		given[f.Name] = true
		if err := s.set(f, value); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", s.Variable(f.Name), err))
		}
	})
	path, err := s.Flags.GetString(s.FileFlag)
	if err == nil && path != "" {
		mistakes = append(mistakes, s.loadFile(path, given))
	}
	return errors.Join(mistakes...)
}

func (s *Set) loadFile(path string, given map[string]bool) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		// Without the lines around it: they may hold a secret.
		return fmt.Errorf("%s:%s", path, yaml.FormatError(err, false, false))
	}
	var mistakes []error
	for _, doc := range file.Docs {
		entries, err := mappingOf(doc.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, entry := range entries {
			name := entry.Key.String()
			at := fmt.Sprintf("%s:%d", path, entry.Key.GetToken().Position.Line)
			switch flag := s.Flags.Lookup(name); {
			case flag == nil || name == s.FileFlag:
				mistakes = append(mistakes, fmt.Errorf("%s: unknown key %q; known keys are %s", at, name, strings.Join(s.names(), ", ")))
			case given[name]:
			default:
				mistakes = append(mistakes, s.setNode(flag, entry.Value, at))
			}
		}
	}
	return errors.Join(mistakes...)
}

func mappingOf(body ast.Node) ([]*ast.MappingValueNode, error) {
	switch node := body.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	case *ast.MappingNode:
		return node.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{node}, nil
	default:
		return nil, errors.New("want settings as `name: value`, one a line")
	}
}

func (s *Set) setNode(flag *pflag.Flag, node ast.Node, at string) error {
	value, err := text(node)
	if err == nil {
		err = s.set(flag, value)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", at, flag.Name, err)
	}
	return nil
}

// text answers a scalar as it would be typed, and a list of scalars with commas.
func text(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.SequenceNode:
		var parts []string
		for _, item := range n.Values {
			part, err := text(item)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ","), nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.NullNode:
		return "", nil
	case *ast.MappingNode, *ast.MappingValueNode:
		return "", errors.New("want a value or a list, not further keys")
	default:
		return node.GetToken().Value, nil
	}
}

func (s *Set) set(flag *pflag.Flag, value string) error {
	if err := s.Flags.Set(flag.Name, value); err != nil {
		return s.valueError(flag, value, err)
	}
	return nil
}

// flagError names the flag of a value on the command line as that of a variable or of a key in the file is named.
func (s *Set) flagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	return fmt.Errorf("--%s: %w", bad.GetFlag().Name, s.valueError(bad.GetFlag(), bad.GetValue(), err))
}

// kinds says what the types of settings take, where their own complaint is one for Go programmers.
var kinds = map[string]string{
	"bool":     "true or false",
	"int":      "a whole number",
	"uint16":   "a whole number from 0 to 65535",
	"float64":  "a number",
	"duration": "a duration, e.g. 90s, 5m or 2h",
}

// valueError says what is wrong with a value and what is possible, without the value where it is secret.
func (s *Set) valueError(flag *pflag.Flag, value string, err error) error {
	if s.secret[flag.Name] {
		return errors.New("not a valid value")
	}
	if kind, ok := kinds[flag.Value.Type()]; ok {
		return fmt.Errorf("%q: want %s", value, kind)
	}
	// pflag's text repeats the flag; its cause is the news.
	if cause := errors.Unwrap(err); cause != nil {
		err = cause
	}
	return fmt.Errorf("%q: %w", value, err)
}

func (s *Set) names() []string {
	var names []string
	s.Flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != s.FileFlag {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}

type choice struct {
	target  *string
	choices []string
}

func (c *choice) String() string {
	if c.target == nil {
		return ""
	}
	return *c.target
}

func (c *choice) Set(value string) error {
	if !slices.Contains(c.choices, value) {
		return fmt.Errorf("choices are %s", strings.Join(c.choices, ", "))
	}
	*c.target = value
	return nil
}

func (c *choice) Type() string { return "word" }
