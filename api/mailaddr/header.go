package mailaddr

import "strings"

// MaxHeaderBytes is the longest From field that is read, in octets.
const MaxHeaderBytes = 16 << 10

// maxCommentDepth bounds nested comments; real mail has one level.
const maxCommentDepth = 16

// FromHeader reads the value of a From field, folded or not, and returns its
// one address. Display names, comments, encoded words and raw 8-bit text around
// the address are tolerated and ignored. Two mailboxes, a group, or no address
// are refused: the product must be able to say who is speaking.
//
// A quoted local part that is a dot-atom inside its quotes is read as that
// dot-atom, which is what it means (RFC 5322 3.2.4).
func FromHeader(value string) (Address, error) {
	if len(value) > MaxHeaderBytes {
		return Address{}, refuse(RuleHeaderTooLong)
	}
	text, err := unfold(value)
	if err != nil {
		return Address{}, err
	}
	scan := headerScan{in: text}
	scan.outside.Grow(len(text))
	if err := scan.run(); err != nil {
		return Address{}, err
	}
	spec := scan.outside.String()
	if scan.sawAngle {
		spec = scan.angle.String()
	}
	return parseSpec(strings.TrimSpace(spec))
}

// unfold takes out line ends that are followed by white space (RFC 5322 2.2.3)
// and refuses every other control byte but the tab.
func unfold(value string) (string, error) {
	var b strings.Builder
	b.Grow(len(value))
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '\r' && i+1 < len(value) && value[i+1] == '\n' {
			i++
			c = '\n'
		}
		switch {
		case c == '\n':
			atEnd := i+1 == len(value)
			if !atEnd && value[i+1] != ' ' && value[i+1] != '\t' {
				return "", refuse(RuleControl)
			}
		case c == '\t':
			b.WriteByte(' ')
		case c < ' ' || c == 0x7f:
			return "", refuse(RuleControl)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// headerScan walks a From value once and sorts its bytes into what stands in
// angle brackets and what stands outside. Quoted strings and comments are
// honoured everywhere, so that no bracket, comma or "@" inside them counts.
type headerScan struct {
	in       string
	pos      int
	outside  strings.Builder // the addr-spec, where there are no brackets
	angle    strings.Builder
	inAngle  bool
	sawAngle bool
}

func (h *headerScan) run() error {
	for h.pos < len(h.in) {
		if err := h.step(h.in[h.pos]); err != nil {
			return err
		}
	}
	if h.inAngle {
		return refuse(RuleBrackets)
	}
	return nil
}

func (h *headerScan) step(c byte) error {
	switch c {
	case '"':
		return h.quoted()
	case '(':
		return h.comment()
	case ')':
		return refuse(RuleComment)
	case '<':
		return h.open()
	case '>':
		return h.close()
	case ',':
		return refuse(RuleManyAddresses)
	case ';', ':':
		return refuse(RuleGroup)
	}
	return h.emit(h.in[h.pos : h.pos+1])
}

// emit keeps text; after the closing bracket only white space and comments may
// follow.
func (h *headerScan) emit(text string) error {
	h.pos += len(text)
	switch {
	case h.inAngle:
		h.angle.WriteString(text)
	case !h.sawAngle:
		h.outside.WriteString(text)
	case strings.TrimSpace(text) != "":
		return refuse(RuleManyAddresses)
	}
	return nil
}

func (h *headerScan) open() error {
	if h.sawAngle {
		return refuse(RuleManyAddresses)
	}
	h.sawAngle, h.inAngle = true, true
	h.pos++
	h.angle.Grow(len(h.in) - h.pos)
	return nil
}

func (h *headerScan) close() error {
	if !h.inAngle {
		return refuse(RuleBrackets)
	}
	h.inAngle = false
	h.pos++
	return nil
}

func (h *headerScan) quoted() error {
	for i := h.pos + 1; i < len(h.in); i++ {
		switch h.in[i] {
		case '\\':
			i++
		case '"':
			return h.emit(h.in[h.pos : i+1])
		}
	}
	return refuse(RuleQuoted)
}

func (h *headerScan) comment() error {
	depth := 0
	for i := h.pos; i < len(h.in); i++ {
		switch h.in[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth > maxCommentDepth {
			return refuse(RuleComment)
		}
		if depth == 0 {
			h.pos = i + 1
			return nil
		}
	}
	return refuse(RuleComment)
}

// parseSpec reads an addr-spec out of a header, where U-labels and UTF-8 need
// no negotiation of ours to be understood.
func parseSpec(spec string) (Address, error) {
	if strings.HasPrefix(spec, `"`) {
		local, rest, ok := strings.Cut(spec[1:], `"`)
		if !ok || !strings.HasPrefix(rest, "@") {
			return Address{}, refuse(RuleQuoted)
		}
		if strings.Contains(local, "@") {
			return Address{}, refuse(RuleQuoted)
		}
		spec = local + rest
	}
	return Parse(spec, Options{SMTPUTF8: true})
}
