package mailaddr

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of RFC 5321 4.5.3.1, in octets. A path of 256 octets includes its two
// angle brackets, which leaves 254 for the address.
const (
	MaxLocalBytes   = 64
	MaxDomainBytes  = 253
	MaxAddressBytes = 254
)

// Address is a parsed mail address. The zero value is the null sender "<>".
type Address struct {
	// Local is a dot-atom in the case in which it came, because only the
	// owner of the domain may say whether case matters (RFC 5321 2.4).
	Local string
	// Domain is lower-case A-labels without a trailing dot.
	Domain string
}

// Options say what the sender of the text was allowed to use.
type Options struct {
	// SMTPUTF8 admits non-ASCII local parts and U-label domains. The default
	// is to refuse them.
	SMTPUTF8 bool
}

// Parse reads "local@domain". The null sender is refused.
func Parse(s string, opt Options) (Address, error) {
	if err := checkBytes(s, opt); err != nil {
		return Address{}, err
	}
	at := strings.IndexByte(s, '@')
	if at < 0 {
		return Address{}, refuse(RuleNoDomain)
	}
	local, rest := s[:at], s[at+1:]
	if local == "" && strings.ContainsAny(rest, ":,") {
		return Address{}, refuse(RuleSourceRoute)
	}
	if err := checkLocal(local); err != nil {
		return Address{}, err
	}
	if strings.IndexByte(rest, '@') >= 0 {
		return Address{}, refuse(RuleManyAts)
	}
	domain, err := ParseDomain(rest)
	if err != nil {
		return Address{}, err
	}
	if len(local)+1+len(domain) > MaxAddressBytes {
		return Address{}, refuse(RuleAddressTooLong)
	}
	return Address{Local: local, Domain: domain}, nil
}

// ParsePath reads the path of a MAIL or RCPT command: an address with or
// without its angle brackets, since some SMTP libraries take them off. "<>" and
// "" are the null sender; a caller that reads RCPT refuses it by [Address.IsNull].
func ParsePath(s string, opt Options) (Address, error) {
	if strings.HasPrefix(s, "<") {
		if !strings.HasSuffix(s, ">") {
			return Address{}, refuse(RuleBrackets)
		}
		s = s[1 : len(s)-1]
	}
	if s == "" {
		return Address{}, nil
	}
	return Parse(s, opt)
}

// IsNull reports whether a is the null sender.
func (a Address) IsNull() bool { return a == Address{} }

// String returns "local@domain", or "" for the null sender.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	return a.Local + "@" + a.Domain
}

// Key returns the form in which two addresses of our own users are compared:
// the local part in lower case. Registered users and aliases are stored so.
func (a Address) Key() string {
	if a.IsNull() {
		return ""
	}
	return strings.ToLower(a.Local) + "@" + a.Domain
}

// IsASCII reports whether the address can be sent to a server that does not
// offer SMTPUTF8.
func (a Address) IsASCII() bool { return isASCII(a.Local) }

// checkBytes refuses what no address may contain, before anything looks for
// structure in the text.
func checkBytes(s string, opt Options) error {
	switch {
	case s == "":
		return refuse(RuleEmpty)
	// Room for a long U-label domain, which shrinks when mapped; the parts are
	// measured again later.
	case len(s) > 4*MaxAddressBytes:
		return refuse(RuleAddressTooLong)
	case !opt.SMTPUTF8 && !isASCII(s):
		return refuse(RuleNeedsSMTPUTF8)
	case !utf8.ValidString(s):
		return refuse(RuleNotUTF8)
	}
	for _, r := range s {
		if !printable(r) {
			return refuse(RuleControl)
		}
	}
	return nil
}

// printable refuses control and format characters, every kind of space, and
// what has no agreed meaning (private use, surrogates, the replacement
// character): none can be shown to a person faithfully.
func printable(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7f
	}
	return r != utf8.RuneError && unicode.IsGraphic(r) && !unicode.IsSpace(r)
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return refuse(RuleNoLocal)
	case strings.ContainsAny(local, `"\`):
		return refuse(RuleQuoted)
	case strings.ContainsAny(local, "%!"):
		return refuse(RuleRouting)
	case len(local) > MaxLocalBytes:
		return refuse(RuleLocalTooLong)
	}
	afterDot := true // an atom must follow
	for i := 0; i < len(local); i++ {
		c := local[i]
		switch {
		case c == '.':
			if afterDot {
				return refuse(RuleDots)
			}
			afterDot = true
		case isAtext(c):
			afterDot = false
		default:
			return refuse(RuleLocalCharacter)
		}
	}
	if afterDot {
		return refuse(RuleDots)
	}
	return nil
}

// isAtext is the atext of RFC 5322 3.2.3 and RFC 6532 3.2, less the routing
// characters that checkLocal has refused by name.
func isAtext(c byte) bool {
	return isLetterDigit(c) || c >= utf8.RuneSelf || strings.IndexByte("#$&'*+-/=?^_`{|}~", c) >= 0
}

func isLetterDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
