package tlspolicy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is what an MTA-STS policy wants done about a server that fails it.
type Mode string

// The modes of RFC 8461 5.
const (
	ModeEnforce Mode = "enforce"
	ModeTesting Mode = "testing"
	ModeNone    Mode = "none"
)

// Bounds of a policy (RFC 8461 3.1, 3.2).
const (
	maxAgeSeconds = 31557600
	maxIDBytes    = 32
	maxPatterns   = 1000
)

// Policy is an MTA-STS policy. The zero value demands nothing.
type Policy struct {
	// ID is the id of the record under which the policy was fetched.
	ID   string `json:"id"`
	Mode Mode   `json:"mode"`
	// MX are the patterns of the hosts that may take the domain's mail.
	MX []string `json:"mx,omitempty"`
	// Fetched and Expires bound the time in which the policy is in force.
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
}

// Enforced reports whether mail must not go to a server that fails the policy.
func (p Policy) Enforced() bool { return p.Mode == ModeEnforce }

// Tested reports whether failures are only to be noted.
func (p Policy) Tested() bool { return p.Mode == ModeTesting }

// Names reports whether the policy lists host among the domain's servers. A
// "*" stands for one label (RFC 8461 4.1).
func (p Policy) Names(host string) bool {
	host = canonical(host)
	_, parent, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		if suffix, ok := strings.CutPrefix(pattern, "*."); ok {
			return parent != "" && suffix == parent
		}
		return pattern == host
	})
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// errNoRecord says that a domain has no MTA-STS record that counts.
var errNoRecord = errors.New("no MTA-STS record")

// recordID returns the id of a domain's MTA-STS record among its TXT records.
// Without exactly one the domain has none (RFC 8461 3.1).
func recordID(txt []string) (string, error) {
	var found []string
	for _, t := range txt {
		if version, _, _ := strings.Cut(t, ";"); strings.TrimSpace(version) == "v=STSv1" {
			found = append(found, t)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%w: %d of %d TXT records are one", errNoRecord, len(found), len(txt))
	}
	for field := range strings.SplitSeq(found[0], ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if strings.TrimSpace(key) != "id" {
			continue
		}
		if id := strings.TrimSpace(value); isID(id) {
			return id, nil
		}
		break
	}
	return "", fmt.Errorf("%w: its id is not 1 to %d letters and digits", errNoRecord, maxIDBytes)
}

func isID(s string) bool {
	bad := func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
	return s != "" && len(s) <= maxIDBytes && !strings.ContainsFunc(s, bad)
}

var errPolicy = errors.New("not an MTA-STS policy")

// parsePolicy reads the text of a policy that was fetched now (RFC 8461 3.2).
// Keys that it does not know are left alone, of those it knows the first
// counts.
func parsePolicy(text, id string, now time.Time) (Policy, error) {
	first := make(map[string]string)
	var mx []string
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok && key != "" {
			return Policy{}, fmt.Errorf("%w: line %.40q has no key", errPolicy, line)
		}
		if key == "mx" {
			mx = append(mx, canonical(value))
		} else if _, again := first[key]; !again {
			first[key] = value
		}
	}
	age, err := strconv.ParseUint(first["max_age"], 10, 64)
	mode := Mode(first["mode"])
	switch {
	case first["version"] != "STSv1":
		return Policy{}, fmt.Errorf("%w: version %.40q", errPolicy, first["version"])
	case mode != ModeEnforce && mode != ModeTesting && mode != ModeNone:
		return Policy{}, fmt.Errorf("%w: mode %.40q", errPolicy, first["mode"])
	case err != nil:
		return Policy{}, fmt.Errorf("%w: max_age %.40q", errPolicy, first["max_age"])
	case len(mx) == 0 && mode != ModeNone:
		return Policy{}, fmt.Errorf("%w: it names no host", errPolicy)
	case len(mx) > maxPatterns:
		return Policy{}, fmt.Errorf("%w: it names more than %d hosts", errPolicy, maxPatterns)
	}
	for _, pattern := range mx {
		if !isPattern(pattern) {
			return Policy{}, fmt.Errorf("%w: host %.80q", errPolicy, pattern)
		}
	}
	lasts := time.Duration(min(age, maxAgeSeconds)) * time.Second
	return Policy{ID: id, Mode: mode, MX: mx, Fetched: now, Expires: now.Add(lasts)}, nil
}

// isPattern accepts a host name, or one behind "*.".
func isPattern(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		bad := func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '-' && r != '_' }
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, bad) {
			return false
		}
	}
	return true
}
