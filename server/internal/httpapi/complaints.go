package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"activerelay/api"
	"activerelay/api/feedback"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/arf"
	"activerelay/server/internal/store"
)

// clockSkew is how far an edge's clock may be behind ours.
const clockSkew = 5 * time.Minute

// ListComplaints lists the complaints that the token may see, newest first.
func (a *API) ListComplaints(ctx context.Context, r rest.ListComplaintsRequestObject) (rest.ListComplaintsResponseObject, error) {
	p := r.Params
	cursor, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain)
	if err != nil {
		return nil, err
	}
	filter := store.ComplaintFilter{Partner: text(p.Partner)}
	if filter.Domain, err = domainFilter(p.Domain); err != nil {
		return nil, err
	}
	var rows []store.Complaint
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.Complaints(filter, cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Complaint) string { return row.ID })
	return rest.ListComplaints200JSONResponse{Items: convert(rows, complaintToAPI), NextPageToken: next}, nil
}

// GetComplaint shows one complaint and what it led to.
func (a *API) GetComplaint(ctx context.Context, r rest.GetComplaintRequestObject) (rest.GetComplaintResponseObject, error) {
	var row store.Complaint
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Complaint(r.ComplaintID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "complaint")
	}
	return rest.GetComplaint200JSONResponse{ComplaintResponseJSONResponse: rest.ComplaintResponseJSONResponse(complaintToAPI(row))}, nil
}

// report is an abuse report in either form.
type report struct {
	tokens                          []string
	feedbackType, reporter, comment string
	// receivedAt is nil where the report does not say when it came.
	receivedAt *time.Time
}

// FileComplaint takes one abuse report. The same report again changes nothing.
func (a *API) FileComplaint(ctx context.Context, r rest.FileComplaintRequestObject) (rest.FileComplaintResponseObject, error) {
	filed, request, err := readReport(r)
	if err != nil {
		return nil, err
	}
	edge, claims, err := a.resolve(filed.tokens)
	if err != nil {
		return nil, err
	}
	return idempotent(ctx, a, attempt[rest.FileComplaintResponseObject]{
		key: r.Params.IdempotencyKey, request: request, visit: rest.FileComplaintResponseObject.VisitFileComplaintResponse,
	}, func(tx *store.Tx) (rest.FileComplaintResponseObject, error) {
		row := store.Complaint{
			ID: newID("cmp_", tx.Now), ReceivedAt: receivedAt(filed, tx.Now), FeedbackType: filed.feedbackType,
			MessageID: claims.MessageID, Domain: claims.Domain, UserAddress: claims.User,
			ClientAddress: claims.ClientAddress, Edge: edge, Sender: claims.Sender, Reporter: filed.reporter,
			Comment: filed.comment,
		}
		isNew, err := a.fileComplaint(ctx, tx, &row)
		if err != nil {
			return nil, err
		}
		if isNew {
			return rest.FileComplaint201JSONResponse(complaintToAPI(row)), nil
		}
		return rest.FileComplaint200JSONResponse{
			ComplaintResponseJSONResponse: rest.ComplaintResponseJSONResponse(complaintToAPI(row)),
		}, nil
	})
}

// readReport reads the body in whichever form it came, with what identifies it among repeated requests.
func readReport(r rest.FileComplaintRequestObject) (report, any, error) {
	if r.JSONBody != nil {
		b := r.JSONBody
		filed := report{
			tokens: []string{b.FeedbackID}, feedbackType: strings.ToLower(text(b.FeedbackType)),
			reporter: strings.ToLower(text(b.Reporter)), comment: text(b.Comment), receivedAt: b.ReceivedAt,
		}
		if filed.feedbackType == "" {
			filed.feedbackType = "abuse"
		}
		return filed, b, nil
	}
	if r.Body == nil {
		return report{}, nil, problem.Malformed("This operation needs a request body")
	}
	message, err := io.ReadAll(r.Body)
	if err != nil {
		return report{}, nil, err
	}
	read, err := arf.Parse(bytes.NewReader(message))
	switch {
	case errors.Is(err, arf.ErrNoToken):
		return report{}, nil, problem.ComplaintUnresolved("The reported message carries no " + feedback.HeaderName + " field")
	case errors.Is(err, arf.ErrNoReport):
		return report{}, nil, problem.Malformed("The message is not an abuse report (RFC 5965): a multipart/report with report-type=feedback-report")
	case err != nil:
		return report{}, nil, err
	}
	return report{
		tokens: read.Tokens, feedbackType: cutText(read.FeedbackType, 40), reporter: cutText(read.Reporter, 200),
	}, message, nil
}

// cutText keeps what a stranger wrote within the length that the contract gives the property.
func cutText(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// receivedAt is when a report came: now where it does not say, and never later.
func receivedAt(filed report, now time.Time) time.Time {
	if filed.receivedAt == nil || filed.receivedAt.After(now) {
		return now
	}
	return filed.receivedAt.UTC().Truncate(time.Microsecond)
}

// resolve opens the first of the tokens that one of our edges made. A message that went through us twice carries two,
// the later one on top.
func (a *API) resolve(tokens []string) (edge string, claims feedback.Claims, err error) {
	for _, token := range tokens {
		if edge, err = feedback.Edge(token); err != nil {
			continue
		}
		if claims, err = feedback.Open(a.feedbackKey(edge), token); err == nil {
			return edge, claims, nil
		}
	}
	return "", feedback.Claims{}, problem.ComplaintUnresolved("")
}

// feedbackKey is the key under which an edge seals the tokens of its messages. It is derived from the id, so a complaint
// about a message of an edge that is long retired still finds its way.
func (a *API) feedbackKey(edge string) [feedback.KeyBytes]byte {
	return [feedback.KeyBytes]byte(a.subkey("feedback " + edge))
}

// fileComplaint keeps a complaint, unless the same reporter has complained about the same message before; then row
// becomes that one. A new one may disable what is guilty.
func (a *API) fileComplaint(ctx context.Context, tx *store.Tx, row *store.Complaint) (isNew bool, err error) {
	// Locked, so that complaints about one domain are counted one after the other.
	domain, err := tx.LockDomain(row.Domain)
	if errors.Is(err, store.ErrNotFound) || err == nil && olderThanDomain(row.MessageID, domain) {
		return false, problem.ComplaintUnresolved("The domain of the message is no longer registered")
	}
	if err != nil {
		return false, err
	}
	row.Partner = domain.Partner
	suspects, err := a.suspects(tx, row, domain)
	if err != nil {
		return false, err
	}
	row.Counts = isAbuse(row.FeedbackType) && !suspects.stopped()
	if isNew, err = tx.InsertComplaint(row); err != nil {
		return false, err
	}
	if !isNew {
		*row, err = tx.ComplaintBy(row.MessageID, row.Reporter)
		return false, err
	}
	if row.Counts {
		if row.Disabled, err = a.disableGuilty(ctx, tx, suspects); err != nil {
			return false, err
		}
		if err := tx.SetComplaintDisabled(row); err != nil {
			return false, err
		}
	}
	return true, a.audit(ctx, tx, change{object: "complaint/" + row.ID, partner: row.Partner, after: complaintToAPI(*row)})
}

// olderThanDomain reports whether a message was relayed before its domain was registered: it belonged to somebody else
// then. Message ids are ULIDs, which begin with the time.
func olderThanDomain(messageID string, domain store.Domain) bool {
	id, err := ulid.ParseStrict(messageID)
	return err == nil && ulid.Time(id.Time()).Add(clockSkew).Before(domain.CreatedAt)
}

// isAbuse reports whether a type of report complains about the sender: not-spam takes a complaint back, auth-failure
// and dmarc are about how the message was signed.
func isAbuse(feedbackType string) bool {
	switch feedbackType {
	case "not-spam", "auth-failure", "dmarc":
		return false
	}
	return true
}

func complaintToAPI(row store.Complaint) api.Complaint {
	disabled := []string(row.Disabled)
	if disabled == nil {
		disabled = []string{}
	}
	return api.Complaint{
		ID: row.ID, ReceivedAt: row.ReceivedAt, FeedbackType: row.FeedbackType, MessageID: row.MessageID,
		Domain: row.Domain, Partner: row.Partner, User: optional(row.UserAddress),
		ClientAddress: optional(row.ClientAddress), Edge: row.Edge, Sender: optional(row.Sender),
		Reporter: optional(row.Reporter), Comment: optional(row.Comment), Disabled: disabled,
	}
}
