package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math/big"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
)

func (p *Printer) json(value any) error {
	text, err := encode(value, "  ")
	if err != nil {
		return err
	}
	_, err = p.Out.Write(text)
	return err
}

func (p *Printer) line(value any) error {
	text, err := encode(value, "")
	if err != nil {
		return err
	}
	_, err = p.Out.Write(text)
	return err
}

// lines writes one row to a line.
func (p *Printer) lines(pages iter.Seq2[any, error], shape Shape) error {
	for page, err := range pages {
		if err != nil {
			return err
		}
		for _, row := range invoke.Rows(page, shape.Rows) {
			if err := p.line(row); err != nil {
				return err
			}
		}
	}
	return nil
}

func encode(value any, indent string) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return b.Bytes(), nil
}

func (p *Printer) yaml(value any) error {
	text, err := yaml.MarshalWithOptions(native(value), yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = p.Out.Write(text)
	return err
}

// native gives numbers a Go type, since YAML would quote json.Number.
func native(value any) any {
	switch v := value.(type) {
	case json.Number:
		if whole, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return whole
		}
		if whole, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return whole
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return string(v)
	case *big.Int:
		return v.String()
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, inner := range v {
			object[name] = native(inner)
		}
		return object
	case []any:
		elements := make([]any, len(v))
		for i, inner := range v {
			elements[i] = native(inner)
		}
		return elements
	default:
		return value
	}
}

// filtered writes what the jq filter makes of the answer, one result after
// another: plain text for strings unless a format was asked for, as jq -r does.
func (p *Printer) filtered(value any) error {
	results := p.filter.Run(value)
	for n := 0; ; n++ {
		result, more := results.Next()
		if !more {
			return nil
		}
		if err, failed := result.(error); failed {
			return failure.Usagef("--jq: %s", strings.TrimPrefix(err.Error(), "jq: "))
		}
		if n > 0 && p.Format == "yaml" {
			fmt.Fprintln(p.Out, "---")
		}
		if err := p.result(result); err != nil {
			return err
		}
	}
}

func (p *Printer) result(value any) error {
	switch p.Format {
	case "json":
		return p.json(value)
	case "yaml":
		return p.yaml(value)
	case "jsonl":
		return p.line(value)
	}
	if text, ok := value.(string); ok {
		_, err := fmt.Fprintln(p.Out, text)
		return err
	}
	return p.line(value)
}
