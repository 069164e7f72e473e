package smtpd

import (
	"bytes"
	"strings"
	"testing"
)

// BenchmarkNewlines is the price of looking at the line ends of 50 KiB beside that of copying them. A message that is all
// special bytes must not cost much more than others: it is what somebody who means harm would send.
func BenchmarkNewlines(b *testing.B) {
	regular := []byte(strings.Repeat(strings.Repeat("abcdefghij", 7)+"\r\n", 50<<10/72))
	for name, text := range map[string][]byte{
		"regular": regular, "bare LF": bytes.Repeat([]byte("\n"), 50<<10), "bare CR": bytes.Repeat([]byte("\r"), 50<<10),
		"CR CR LF": bytes.Repeat([]byte("\r\r\n"), 50<<10/3),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				n := newlines{normalise: true}
				n.fix(text)
			}
		})
	}
	b.Run("ceiling copy", func(b *testing.B) {
		b.SetBytes(int64(len(regular)))
		var out []byte
		for b.Loop() {
			out = append(out[:0], regular...)
		}
	})
}

// BenchmarkHeader is the price of looking at the header of a letter of 5 KiB, and at all of it for eight bits. It takes memory for
// the From field alone.
func BenchmarkHeader(b *testing.B) {
	letter := []byte(letterOf(5 << 10))
	var h header
	b.SetBytes(int64(len(letter)))
	b.ReportAllocs()
	for b.Loop() {
		h.reset()
		h.feed(letter)
		if fault := h.finish(); fault != "" {
			b.Fatal(fault)
		}
	}
}
