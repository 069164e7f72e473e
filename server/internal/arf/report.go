// Package arf reads abuse reports in the Abuse Reporting Format (RFC 5965) as mailbox providers send them, and takes out
// of them what a complaint needs: the type of the report, who reports, and the feedback tokens in the header of the
// reported message (RFC 9477).
//
// A report is a multipart/report of three parts: a text for people, a message/feedback-report of fields for machines,
// and the reported message or its header alone. The first is skipped. Of the last only the header is read, and leniently:
// it went through the hands of strangers, so a line without a colon, an mbox "From " line, bare LF or a missing final
// boundary do not hide the token that stands beside them. What the other fields claim about the message (Source-IP,
// Original-Mail-From) is ignored on purpose: anybody can write it, while the token is sealed by us.
//
// The package does not know whether a token is genuine; see api/feedback.
package arf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"activerelay/api/feedback"
)

// Limits of what is read. A report is small: the reported header, rarely the message.
const (
	maxParts       = 10
	maxPartBytes   = 256 << 10
	maxHeaderBytes = 64 << 10
	maxTokens      = 10
)

// Report is what a complaint needs of an abuse report.
type Report struct {
	// FeedbackType is RFC 5965 3.1's, in lower case. "abuse" when the report names none.
	FeedbackType string
	// Reporter is the address of who sent the report, else the MTA that names itself in it. "" when neither is said.
	Reporter string
	// Tokens are the values of the reported message's CFBL-Feedback-ID fields, the latest hop's first.
	Tokens []string
}

// The errors of Parse.
var (
	// ErrNoReport is a message that is not an ARF report.
	ErrNoReport = errors.New("the message is not an abuse report (multipart/report with report-type=feedback-report)")
	// ErrNoToken is a report on a message that carries no feedback token.
	ErrNoToken = errors.New("the reported message carries no " + feedback.HeaderName + " field")
)

// Parse reads one report. It reads r to no further than it must.
func Parse(r io.Reader) (Report, error) {
	entity, err := message.ReadWithOptions(r, &message.ReadOptions{MaxHeaderBytes: maxHeaderBytes})
	if entity == nil {
		return Report{}, fmt.Errorf("%w: %w", ErrNoReport, err)
	}
	kind, params, err := entity.Header.ContentType()
	if err != nil || kind != "multipart/report" || !strings.EqualFold(params["report-type"], "feedback-report") {
		return Report{}, ErrNoReport
	}
	parts := entity.MultipartReader()
	if parts == nil {
		return Report{}, ErrNoReport
	}
	report, err := readParts(parts)
	if err != nil {
		return Report{}, err
	}
	if from := senderOf(entity.Header.Get("From")); from != "" {
		report.Reporter = from
	}
	return report, nil
}

// readParts takes what can be read until the parts end, however they end: a report that was cut off after the reported
// header still says everything.
func readParts(parts message.MultipartReader) (Report, error) {
	report := Report{FeedbackType: "abuse"}
	machineReadable := false
	for range maxParts {
		part, err := parts.NextPart()
		if part == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			break
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		switch kind {
		case "message/feedback-report":
			machineReadable = true
			report.readFields(part.Body)
		case "message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers":
			report.Tokens = append(report.Tokens, tokensOf(part.Body)...)
		}
	}
	switch {
	case !machineReadable:
		return Report{}, ErrNoReport
	case len(report.Tokens) == 0:
		return Report{}, ErrNoToken
	}
	report.Tokens = report.Tokens[:min(len(report.Tokens), maxTokens)]
	return report, nil
}

// readFields reads the fields of the machine-readable part, which has the form of a header (RFC 5965 3).
func (report *Report) readFields(body io.Reader) {
	header, _ := textproto.ReadHeader(bufio.NewReader(io.LimitReader(body, maxPartBytes)))
	if kind := strings.ToLower(strings.TrimSpace(header.Get("Feedback-Type"))); kind != "" {
		report.FeedbackType = kind
	}
	// "dns; mta.example": the type is for machines that know several.
	reporter := header.Get("Reporting-MTA")
	if _, name, found := strings.Cut(reporter, ";"); found {
		reporter = name
	}
	report.Reporter = strings.TrimSpace(reporter)
}

func senderOf(from string) string {
	address, err := mail.ParseAddress(from)
	if err != nil {
		return ""
	}
	return strings.ToLower(address.Address)
}

// tokensOf returns the values of all feedback fields in the header that body begins with. Later hops write theirs above
// earlier ones.
func tokensOf(body io.Reader) []string {
	// A transfer encoding that breaks off leaves what was decoded before.
	text, _ := io.ReadAll(io.LimitReader(body, maxPartBytes))
	var tokens []string
	var open bool
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if open {
				tokens[len(tokens)-1] += string(bytes.TrimSpace(line))
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		open = strings.EqualFold(string(bytes.TrimRight(name, " \t")), feedback.HeaderName)
		if open {
			tokens = append(tokens, string(bytes.TrimSpace(value)))
		}
	}
	return tokens
}
