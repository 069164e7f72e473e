package failure

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
)

// Unreadable is the error for a file that is no YAML: with line and column
// where the parser knows them.
func Unreadable(name string, err error) *Error {
	var placed yaml.Error
	if errors.As(err, &placed) && placed.GetToken() != nil && placed.GetToken().Position != nil {
		at := placed.GetToken().Position
		return &Error{Code: Usage, Detail: fmt.Sprintf("%s:%d:%d: %s", name, at.Line, at.Column, placed.GetMessage()), Cause: err}
	}
	return &Error{Code: Usage, Detail: name + ": " + strings.TrimSpace(yaml.FormatError(err, false, false)), Cause: err}
}
