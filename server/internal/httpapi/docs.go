package httpapi

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"activerelay/api/rest"
)

// static holds the page and Redoc 2.5.1 (MIT licence, beside it), so that the documentation needs no other host.
//
//go:embed static/docs.html static/redoc.standalone.js
var static embed.FS

// docsPolicy lets the page run what is written in it and load nothing.
const docsPolicy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// GetContract answers the contract as it was written.
func (a *API) GetContract(context.Context, rest.GetContractRequestObject) (rest.GetContractResponseObject, error) {
	document := rest.Contract()
	return rest.GetContract200ApplicationYamlResponse{
		Body: strings.NewReader(document), ContentLength: int64(len(document)),
	}, nil
}

// GetDocs answers the page that renders the contract.
func (a *API) GetDocs(context.Context, rest.GetDocsRequestObject) (rest.GetDocsResponseObject, error) {
	page, err := a.contract.page()
	if err != nil {
		return nil, err
	}
	return rest.GetDocs200TextHTMLResponse{
		Body: bytes.NewReader(page), ContentLength: int64(len(page)),
		Headers: rest.GetDocs200ResponseHeaders{ContentSecurityPolicy: docsPolicy},
	}, nil
}

// docsPage fills the script and the contract into the page. Neither may end the element that it stands in.
func docsPage(document *openapi3.T) ([]byte, error) {
	page, err := static.ReadFile("static/docs.html")
	if err != nil {
		return nil, err
	}
	script, err := static.ReadFile("static/redoc.standalone.js")
	if err != nil {
		return nil, err
	}
	contract, err := document.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("contract as JSON: %w", err)
	}
	filled := strings.NewReplacer(
		"{{.Script}}", strings.ReplaceAll(string(script), "</script", `<\/script`),
		"{{.Contract}}", strings.ReplaceAll(string(contract), "</", `<\/`),
	).Replace(string(page))
	return []byte(filled), nil
}
