package deliver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of one reply. RFC 5321 4.5.3.1.5 asks for lines of 512 octets; real
// servers write longer ones, hostile ones endless ones.
const (
	maxReplyLineBytes = 2048
	maxReplyLines     = 100
	maxReplyTextBytes = 1000
)

// Errors of the reply parser. After any of them the stream is out of step and
// the connection is of no further use.
var (
	errReplyLine  = errors.New("reply line longer than 2048 bytes")
	errReplyLines = errors.New("reply of more than 100 lines")
	errReplyShape = errors.New("not an SMTP reply")
	errReplyMixed = errors.New("reply lines with different codes")
)

// reply is one reply of the server.
type reply struct {
	code int
	// enhanced is the RFC 3463 status, empty when the server gave none that
	// fits the code.
	enhanced string
	// text is all lines without codes, sanitised and shortened.
	text string
	// lines are the lines after their codes, as sent, where there are several:
	// the EHLO reply needs them.
	lines []string
}

// readReply reads one reply, of one or many lines. in must hold lines of
// maxReplyLineBytes.
func readReply(in *bufio.Reader) (reply, error) { return parseReply(in, false) }

// readVerdict is readReply without the text of a yes, which is what most
// replies are, and nobody reads.
func readVerdict(in *bufio.Reader) (reply, error) { return parseReply(in, true) }

func parseReply(in *bufio.Reader, verdict bool) (reply, error) {
	var r reply
	var several []string
	for lines := 1; lines <= maxReplyLines; lines++ {
		line, err := readReplyLine(in)
		if err != nil {
			return reply{}, err
		}
		code, more, err := splitReplyLine(line)
		if err != nil {
			return reply{}, err
		}
		if r.code != 0 && code != r.code {
			return reply{}, fmt.Errorf("%w: %d, then %d", errReplyMixed, r.code, code)
		}
		r.code = code
		if verdict && (code/100 == 2 || code == 354) {
			if !more {
				return r, nil
			}
			continue
		}
		text := string(line[min(len(line), 4):])
		if !more && lines == 1 {
			r.enhanced, r.text = splitEnhanced(code, text)
			r.text = shorten(sanitise(r.text), maxReplyTextBytes)
			return r, nil
		}
		if several = append(several, text); !more {
			r.lines = several
			r.enhanced, r.text = replyText(code, several)
			return r, nil
		}
	}
	return reply{}, errReplyLines
}

// readReplyLine returns one line without its end, until the next is read. A
// bare LF is taken for a line end: what counts here is to stay in step with the
// server.
func readReplyLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxReplyLineBytes {
		return nil, errReplyLine
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// splitReplyLine takes the code off "250-text", "250 text" or a bare "250". The
// text begins at its fifth byte.
func splitReplyLine(line []byte) (code int, more bool, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return 0, false, errReplyShape
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, nil
	}
	switch line[3] {
	case ' ':
		return code, false, nil
	case '-':
		return code, true, nil
	}
	return 0, false, errReplyShape
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// replyText joins the lines to one text and takes the enhanced status off each.
func replyText(code int, lines []string) (enhanced, text string) {
	var b strings.Builder
	for _, line := range lines {
		status, rest := splitEnhanced(code, line)
		if enhanced == "" {
			enhanced = status
		}
		if rest = sanitise(rest); rest == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(rest)
		if b.Len() > maxReplyTextBytes {
			break
		}
	}
	return enhanced, shorten(b.String(), maxReplyTextBytes)
}

// splitEnhanced takes "5.1.1 text" apart. A status whose class contradicts the
// reply code is left in the text: the code decides (RFC 2034 4).
func splitEnhanced(code int, line string) (status, rest string) {
	status, rest, _ = strings.Cut(line, " ")
	if !isEnhanced(status) || int(status[0]-'0') != code/100 {
		return "", line
	}
	return status, rest
}

// isEnhanced checks the form of RFC 3463 2: class "." subject "." detail.
func isEnhanced(s string) bool {
	class, rest, ok := strings.Cut(s, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || len(class) != 1 || !strings.Contains("245", class) {
		return false
	}
	return upToThreeDigits(subject) && upToThreeDigits(detail)
}

func upToThreeDigits(s string) bool {
	if s == "" || len(s) > 3 {
		return false
	}
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}

// sanitise makes a stranger's text fit for logs, DSNs and terminals: control
// bytes and what is not UTF-8 become "?".
func sanitise(s string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ', r == 0x7f, 0x80 <= r && r < 0xa0, r == utf8.RuneError, r == 0x2028, r == 0x2029:
			return '?'
		case 0x202a <= r && r <= 0x202e, 0x2066 <= r && r <= 0x2069: // direction overrides
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(clean)
}

// shorten cuts s to at most limit bytes without splitting a character.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
