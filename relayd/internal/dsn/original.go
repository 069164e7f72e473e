package dsn

import (
	"bytes"
	"strings"
)

// original is the part that shows what the notification is about.
type original struct {
	kind    string // MIME type without "global"
	content []byte
}

// original chooses the whole message for a failure under RET=FULL, else its
// header (RFC 3461 4.3 and 6.2).
func (r Report) original() original {
	whole := int64(len(r.Original)) == r.OriginalBytes && r.OriginalBytes <= MaxFullBytes
	if r.Action == Failed && strings.EqualFold(r.Return, "FULL") && whole {
		return original{kind: "message/rfc822", content: r.Original}
	}
	return original{kind: "text/rfc822-headers", content: headerSection(r.Original)}
}

func (o original) write(w *writer, utf8 bool) {
	kind := o.kind
	if utf8 {
		// RFC 6533 4: the types that may hold UTF-8.
		kind = map[string]string{"message/rfc822": "message/global", "text/rfc822-headers": "message/global-headers"}[kind]
	}
	w.line("Content-Type: ", kind)
	if !ascii(o.content) {
		w.line("Content-Transfer-Encoding: 8bit")
	}
	w.line()
	w.Write(o.content)
	if !bytes.HasSuffix(o.content, []byte("\r\n")) {
		w.line()
	}
	w.line()
}

// headerSection returns the header fields of message, cut at a line end when
// there are more than maxHeaderBytes of them.
func headerSection(message []byte) []byte {
	if end := bytes.Index(message, []byte("\r\n\r\n")); end >= 0 {
		message = message[:end+2]
	}
	if len(message) <= maxHeaderBytes {
		return message
	}
	message = message[:maxHeaderBytes]
	return message[:max(0, bytes.LastIndexByte(message, 0x0a)+1)]
}
