package mailaddr

import (
	"strings"

	"golang.org/x/net/idna"
)

const maxLabelBytes = 63

// ParseDomain returns the canonical form of a domain: lower case, U-labels
// mapped to A-labels (UTS 46, non-transitional), one trailing dot dropped.
// Single labels, address literals and all-numeric last labels are refused.
func ParseDomain(s string) (string, error) {
	switch {
	case s == "":
		return "", refuse(RuleNoDomain)
	case s[0] == '[':
		return "", refuse(RuleLiteral)
	case len(s) > 4*MaxDomainBytes:
		return "", refuse(RuleDomainTooLong)
	}
	s = strings.TrimSuffix(s, ".")
	if isASCII(s) {
		s = strings.ToLower(s)
	}
	// Plain LDH names skip IDNA: it would refuse "r3---sn.example", whose
	// hyphens in the third and fourth place are legal in the DNS.
	if !isASCII(s) || hasALabel(s) {
		mapped, err := toASCII(s)
		if err != nil {
			return "", refuse(RuleIDNA)
		}
		s = mapped
	}
	if err := checkDomain(s); err != nil {
		return "", err
	}
	return s, nil
}

func hasALabel(s string) bool {
	return strings.HasPrefix(s, "xn--") || strings.Contains(s, ".xn--")
}

func toASCII(s string) (string, error) {
	profile := idna.New(
		idna.MapForLookup(),
		idna.BidiRule(),
		idna.CheckJoiners(true),
		idna.ValidateLabels(true),
		idna.StrictDomainName(true),
		idna.Transitional(false),
	)
	return profile.ToASCII(s)
}

// checkDomain holds the LDH rule of RFC 1123 2.1 over the mapped name.
func checkDomain(s string) error {
	if len(s) > MaxDomainBytes {
		return refuse(RuleDomainTooLong)
	}
	last, labels := "", 0
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
		last, labels = label, labels+1
	}
	if labels < 2 {
		return refuse(RuleSingleLabel)
	}
	// A number as last label is an IPv4 address in some reader's eyes.
	if strings.Trim(last, "0123456789") == "" {
		return refuse(RuleLiteral)
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > maxLabelBytes {
		return refuse(RuleLabel)
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return refuse(RuleLabel)
	}
	for i := 0; i < len(label); i++ {
		if !isLetterDigit(label[i]) && label[i] != '-' {
			return refuse(RuleDomainCharacter)
		}
	}
	return nil
}
