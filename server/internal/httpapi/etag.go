package httpapi

import (
	"strconv"
	"strings"

	"activerelay/api/problem"
)

// etag is the entity tag of a version.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// ifMatch holds a change to what the client saw: header is its If-Match, nil when it does not care, version what the
// object has now. Version 0 means that there is no object, which no condition matches. RFC 9110 13.1.1: weak tags never
// match.
func ifMatch(header *string, version int64) error {
	if header == nil {
		return nil
	}
	if version != 0 {
		for _, tag := range strings.Split(*header, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || tag == etag(version) {
				return nil
			}
		}
	}
	return problem.PreconditionFailed()
}
