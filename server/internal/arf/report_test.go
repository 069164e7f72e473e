package arf

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const token = "v1:edg_01KAQ7M2Z8Y3F6N5T4R1W0X9VB:c2VhbGVk"

// reportMessage is a report as RFC 5965 B.1 and RFC 9477 A.1 show it, with one reported part.
func reportMessage(partType, part string) string {
	return strings.ReplaceAll(`From: Abuse Desk <FBL@mailbox.example>
Date: Thu, 8 Mar 2026 17:40:36 EDT
Subject: FW: Earn money
To: <abuse@relay.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
 boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP 192.0.2.1.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <somespammer@example.net>
Reporting-MTA: dns; mail.example.com
Source-IP: 192.0.2.1

--part1_13d.2e68ed54_boundary
Content-Type: `+partType+`

`+part+`
--part1_13d.2e68ed54_boundary--
`, "\n", "\r\n")
}

func TestTheReportedHeaderNamesTheMessage(t *testing.T) {
	half := len(token) / 2
	folded := token[:half] + "\n\t" + token[half:]
	encoded := base64.StdEncoding.EncodeToString([]byte("CFBL-Feedback-ID: " + token + "\r\n\r\nbody\r\n"))
	cases := map[string]struct{ kind, part string }{
		"the whole message":   {kind: "message/rfc822\nContent-Disposition: inline", part: "Received: from x\nCFBL-Feedback-ID: " + token + "\nFrom: a@example.com\n\nSpam\n"},
		"its header alone":    {kind: "text/rfc822-headers; charset=utf-8", part: "CFBL-Feedback-ID: " + token + "\n"},
		"any case":            {kind: "Message/RFC822", part: "cfbl-FEEDBACK-id:" + token + "\n\nSpam\n"},
		"a folded field":      {kind: "message/rfc822", part: "CFBL-Feedback-ID:\n " + folded + "\nFrom: a@example.com\n\n"},
		"an mbox line above":  {kind: "message/rfc822", part: "From a@example.com Thu Mar  8 14:00:00 2026\nCFBL-Feedback-ID: " + token + "\n\n"},
		"a line that is none": {kind: "message/rfc822", part: "no colon here\nCFBL-Feedback-ID: " + token + "\n\n"},
		"in base64":           {kind: "message/rfc822\nContent-Transfer-Encoding: base64", part: encoded + "\n"},
		"unknown charset":     {kind: "text/rfc822-headers; charset=x-klingon", part: "CFBL-Feedback-ID: " + token + "\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := Report{FeedbackType: "abuse", Reporter: "fbl@mailbox.example", Tokens: []string{token}}
			for shape, text := range map[string]string{
				"CRLF": reportMessage(c.kind, c.part),
				"LF":   strings.ReplaceAll(reportMessage(c.kind, c.part), "\r\n", "\n"),
			} {
				got, err := Parse(strings.NewReader(text))
				if err != nil {
					t.Fatalf("%s: %v", shape, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: report (-want +got):\n%s", shape, diff)
				}
			}
		})
	}
}

func TestTheLatestHopComesFirst(t *testing.T) {
	text := reportMessage("message/rfc822", "CFBL-Feedback-ID: second\nReceived: x\nCFBL-Feedback-ID: first\n\nCFBL-Feedback-ID: in the body\n")
	got, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"second", "first"}, got.Tokens); diff != "" {
		t.Fatalf("tokens (-want +got):\n%s", diff)
	}
}

func TestTheTypeAndTheReporterAreTakenFromWhereTheyStand(t *testing.T) {
	text := reportMessage("message/rfc822", "CFBL-Feedback-ID: "+token+"\n\n")
	noSender := strings.Replace(text, "From: Abuse Desk <FBL@mailbox.example>", "From: <>", 1)
	cases := map[string]struct {
		text string
		want Report
	}{
		"another type":      {text: strings.Replace(text, "Feedback-Type: abuse", "Feedback-Type: Not-Spam", 1), want: Report{FeedbackType: "not-spam", Reporter: "fbl@mailbox.example"}},
		"no type":           {text: strings.Replace(text, "Feedback-Type: abuse\r\n", "", 1), want: Report{FeedbackType: "abuse", Reporter: "fbl@mailbox.example"}},
		"the MTA":           {text: noSender, want: Report{FeedbackType: "abuse", Reporter: "mail.example.com"}},
		"nobody says":       {text: strings.Replace(noSender, "Reporting-MTA: dns; mail.example.com\r\n", "", 1), want: Report{FeedbackType: "abuse"}},
		"the end is cut":    {text: strings.TrimSuffix(text, "\r\n--part1_13d.2e68ed54_boundary--\r\n"), want: Report{FeedbackType: "abuse", Reporter: "fbl@mailbox.example"}},
		"quoted type value": {text: strings.Replace(text, "report-type=feedback-report", `REPORT-TYPE="Feedback-Report"`, 1), want: Report{FeedbackType: "abuse", Reporter: "fbl@mailbox.example"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.want.Tokens = []string{token}
			got, err := Parse(strings.NewReader(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatNamesNoMessageIsSaidSo(t *testing.T) {
	good := reportMessage("message/rfc822", "CFBL-Feedback-ID: "+token+"\n\n")
	cases := map[string]struct {
		text string
		want error
	}{
		"empty":                   {text: "", want: ErrNoReport},
		"plain mail":              {text: "From: a@example.com\r\nSubject: spam!\r\n\r\nCFBL-Feedback-ID: " + token + "\r\n", want: ErrNoReport},
		"a delivery report":       {text: strings.Replace(good, "report-type=feedback-report", "report-type=delivery-status", 1), want: ErrNoReport},
		"no boundary":             {text: strings.Replace(good, ` boundary="part1_13d.2e68ed54_boundary"`, " x=y", 1), want: ErrNoReport},
		"no machine's part":       {text: strings.Replace(good, "message/feedback-report", "text/plain", 1), want: ErrNoReport},
		"no reported part":        {text: strings.Replace(good, "message/rfc822", "application/pdf", 1), want: ErrNoToken},
		"a message without token": {text: strings.Replace(good, "CFBL-Feedback-ID", "Feedback-ID", 1), want: ErrNoToken},
		"the token in the body":   {text: strings.Replace(good, "CFBL-Feedback-ID", "Subject: x\r\n\r\nCFBL-Feedback-ID", 1), want: ErrNoToken},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got, err := Parse(strings.NewReader(c.text)); !errors.Is(err, c.want) {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestAHugeReportIsReadOnlyInPart(t *testing.T) {
	for name, text := range map[string]string{
		"endless header": "X: " + strings.Repeat("a", 1<<20),
		"many parts":     reportMessage("text/plain", strings.Repeat("\n--part1_13d.2e68ed54_boundary\n\nx\n", 1000)),
		"late token":     reportMessage("message/rfc822", strings.Repeat("X: y\n", maxPartBytes)+"CFBL-Feedback-ID: "+token+"\n\n"),
	} {
		if got, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	many := reportMessage("message/rfc822", strings.Repeat("CFBL-Feedback-ID: "+token+"\n", 100)+"\n")
	if got, err := Parse(strings.NewReader(many)); err != nil || len(got.Tokens) != maxTokens {
		t.Errorf("%d tokens, %v", len(got.Tokens), err)
	}
}

// FuzzParse: no message makes Parse panic or return more than it may.
func FuzzParse(f *testing.F) {
	f.Add(reportMessage("message/rfc822", "CFBL-Feedback-ID: "+token+"\n\n"))
	f.Add(reportMessage("text/rfc822-headers\nContent-Transfer-Encoding: base64", "!!!"))
	f.Add("Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x\r\n\r\n--x--")
	f.Fuzz(func(t *testing.T, text string) {
		report, err := Parse(strings.NewReader(text))
		if err == nil && (len(report.Tokens) == 0 || len(report.Tokens) > maxTokens || report.FeedbackType == "") {
			t.Fatalf("report %+v", report)
		}
	})
}
