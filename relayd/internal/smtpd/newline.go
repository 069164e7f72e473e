package smtpd

import (
	"bytes"
	"slices"
)

// newlines looks at the line ends of a message. RFC 5321 2.3.8: a message
// holds CR and LF only as CR LF, and no NUL. What breaks the rule is how one
// message becomes two at a server that reads line ends more generously than we
// do, so it is either refused or made regular before anybody else sees it.
//
// Only what fix returns is stored. In both modes its line ends are CR LF alone,
// unless broken is set.
type newlines struct {
	// normalise turns bare CR and bare LF into CR LF and drops NUL. Otherwise
	// the message passes as it is, and broken says that it must be refused.
	normalise bool

	broken bool   // something had, or would have had, to be mended
	cr     bool   // the last byte was a CR whose LF may follow
	last   byte   // the last byte given out
	out    []byte // reused
}

// fix returns the next part of the message as it may be stored. The result is
// valid until the next call.
func (n *newlines) fix(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	if !n.cr && regular(p) {
		n.last = p[len(p)-1]
		return p
	}
	n.out = slices.Grow(n.out[:0], len(p)+1)
	for len(p) > 0 {
		if !n.cr {
			whole := regularLines(p)
			n.out, p = append(n.out, p[:whole]...), p[whole:]
		}
		p = n.line(p)
	}
	if len(n.out) > 0 {
		n.last = n.out[len(n.out)-1]
	}
	return n.out
}

// regular reports whether p is as it may be stored, which nearly every part of every message is. The last line may lack its end.
//
// As many CR as LF, and a CR before every LF: then an LF follows every CR too. Counting looks at many bytes at a time.
func regular(p []byte) bool {
	if bytes.IndexByte(p, 0) >= 0 {
		return false
	}
	lines := 0
	for at := 0; ; lines++ {
		end := bytes.IndexByte(p[at:], '\n')
		if end < 0 {
			break
		}
		if at += end; at == 0 || p[at-1] != '\r' {
			return false
		}
		at++
	}
	return bytes.Count(p, []byte{'\r'}) == lines
}

// regularLines is how many bytes of p are whole lines as they should be.
func regularLines(p []byte) int {
	at := 0
	for {
		end := bytes.IndexByte(p[at:], '\n')
		if end < 1 || p[at+end-1] != '\r' {
			return at
		}
		line := p[at : at+end-1]
		if bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
			return at
		}
		at += end + 1
	}
}

// line takes in one line that may be anything, LF included, or all that is there. That regularLines looks no further than
// its LF, and is asked no sooner again, is what keeps hostile messages cheap.
func (n *newlines) line(p []byte) []byte {
	for over := false; !over && len(p) > 0; {
		rest := n.step(p)
		over, p = p[len(p)-len(rest)-1] == '\n', rest
	}
	return p
}

// step takes in one run of ordinary bytes and the special byte behind it. A CR
// is kept back until the next byte says whether it was bare.
func (n *newlines) step(p []byte) []byte {
	if n.cr {
		n.cr = false
		if p[0] == '\n' {
			n.out = append(n.out, '\r', '\n')
			return p[1:]
		}
		n.bare("\r")
	}
	end := slices.IndexFunc(p, func(c byte) bool { return c == '\r' || c == '\n' || c == 0 })
	if end < 0 {
		n.out = append(n.out, p...)
		return nil
	}
	n.out = append(n.out, p[:end]...)
	switch p[end] {
	case '\r':
		n.cr = true
	case '\n':
		n.bare("\n")
	case 0:
		n.broken = true
		if !n.normalise {
			n.out = append(n.out, 0)
		}
	}
	return p[end+1:]
}

func (n *newlines) bare(as string) {
	n.broken = true
	if n.normalise {
		as = "\r\n"
	}
	n.out = append(n.out, as...)
}

// finish returns what is left at the end of the message: a CR that stayed alone,
// and the line end that every further server needs.
func (n *newlines) finish() []byte {
	n.out = n.out[:0]
	if n.cr {
		n.cr = false
		n.bare("\r")
	}
	if len(n.out) > 0 {
		n.last = n.out[len(n.out)-1]
	}
	if n.last != '\n' && n.last != 0 {
		n.out = append(n.out, '\r', '\n')
		n.last = '\n'
	}
	return n.out
}
