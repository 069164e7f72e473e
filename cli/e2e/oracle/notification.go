package oracle

import (
	"regexp"
	"strings"
)

// notification is what a delivery status notification (RFC 3464) says, and of which message.
type notification struct {
	testID, queueID string
	failed          []string // recipients
}

var (
	testIDField  = regexp.MustCompile(`(?mi)^X-Load-Id: (\S+)\r?$`)
	queueIDWords = regexp.MustCompile(`(?s)\nReceived: .*?\s+by \S+ with \S+ id (\w+)`)
)

// readNotification reads the groups of recipients, and the returned header, which is the part at the end. Its own Received fields
// stand above both.
func readNotification(text []byte) notification {
	_, report, found := strings.Cut(string(text), "message/delivery-status")
	if !found {
		return notification{}
	}
	var n notification
	recipient := ""
	for line := range strings.Lines(report) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		switch strings.ToLower(name) {
		case "final-recipient":
			_, recipient, _ = strings.Cut(value, ";")
		case "action":
			if strings.TrimSpace(value) == "failed" {
				n.failed = append(n.failed, strings.TrimSpace(recipient))
			}
		}
	}
	if match := testIDField.FindStringSubmatch(report); match != nil {
		n.testID = match[1]
	}
	if match := queueIDWords.FindStringSubmatch(report); match != nil {
		n.queueID = match[1]
	}
	return n
}
