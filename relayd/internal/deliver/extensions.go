package deliver

import "strings"

// extensions are what the server offered in its EHLO reply.
type extensions struct {
	pipelining, eightBitMIME, smtpUTF8, dsn, startTLS, requireTLS bool

	size         bool
	maxSizeBytes int64 // 0: no limit named
	auth         map[string]bool
}

// parseExtensions reads the lines after the first of an EHLO reply. Keywords
// are compared without regard to case (RFC 5321 2.4).
func parseExtensions(lines []string) extensions {
	e := extensions{auth: make(map[string]bool)}
	for _, line := range lines[min(1, len(lines)):] {
		fields := strings.Fields(strings.ToUpper(line))
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "PIPELINING":
			e.pipelining = true
		case "8BITMIME":
			e.eightBitMIME = true
		case "SMTPUTF8":
			e.smtpUTF8 = true
		case "DSN":
			e.dsn = true
		case "STARTTLS":
			e.startTLS = true
		case "REQUIRETLS":
			e.requireTLS = true
		case "SIZE":
			e.size, e.maxSizeBytes = true, sizeLimit(fields[1:])
		case "AUTH":
			e.offerAuth(fields[1:])
		default:
			// An old form that some servers still send beside the new one.
			if rest, ok := strings.CutPrefix(fields[0], "AUTH="); ok {
				e.offerAuth(append(fields[1:], rest))
			}
		}
	}
	return e
}

func (e *extensions) offerAuth(mechanisms []string) {
	for _, m := range mechanisms {
		e.auth[m] = true
	}
}

func sizeLimit(args []string) int64 {
	var n int64
	if len(args) == 0 {
		return 0
	}
	for i := range len(args[0]) {
		if !digit(args[0][i]) || n > 1<<50 {
			return 0
		}
		n = n*10 + int64(args[0][i]-'0')
	}
	return n
}
