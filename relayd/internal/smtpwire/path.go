package smtpwire

import "bytes"

// parsePath reads "FROM:<path> parameters". The path is what stands between the
// brackets, as it came: a ">" or a space within quotes belongs to it, the quotes
// stay, and whether it is an address is for the session to find out. What
// follows the bracket is empty or begins with a space.
//
// Spaces after the colon are against RFC 5321 4.1.1.2, but printers send them.
// A path without brackets is not taken: where it ends is a matter of opinion.
func parsePath(arg []byte, keyword string) (path string, params []byte, problem string) {
	if len(arg) < len(keyword) || !bytes.EqualFold(arg[:len(keyword)], []byte(keyword)) {
		return "", nil, "want " + keyword + "<address>"
	}
	arg = bytes.TrimLeft(arg[len(keyword):], " ")
	if len(arg) == 0 || arg[0] != '<' {
		return "", nil, "the address must stand in angle brackets"
	}
	end := pathEnd(arg[1:])
	if end < 0 {
		return "", nil, "the address has no closing bracket"
	}
	path, params = string(arg[1:1+end]), arg[end+2:]
	if len(params) > 0 && params[0] != ' ' {
		return "", nil, "want a space behind the address"
	}
	return path, params, ""
}

// pathEnd finds the closing bracket, or returns -1.
func pathEnd(s []byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}
