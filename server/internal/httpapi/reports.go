package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

const (
	// defaultReportDays is how far a report goes back when it is not said.
	defaultReportDays = 30
	// exportPage is how many rows of an export are read at once, maxExportRows how many it may have: about 25 MB.
	exportPage    = 500
	maxExportRows = 200_000
)

// ListQuotaReports lists one row for each domain and day that relayed or refused anything, newest day first.
func (a *API) ListQuotaReports(ctx context.Context, r rest.ListQuotaReportsRequestObject) (rest.ListQuotaReportsResponseObject, error) {
	p := r.Params
	page, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain, p.From, p.To)
	if err != nil {
		return nil, err
	}
	filter, err := a.dayFilter(p.Partner, p.Domain, p.From, p.To)
	if err != nil {
		return nil, err
	}
	after, err := readDayCursor(page.after)
	if err != nil {
		return nil, err
	}
	var days []store.QuotaDay
	var next *string
	var items []api.QuotaReport
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		days, err = tx.DayReports(filter, after, page.limit())
		if err != nil {
			return err
		}
		days, next = cut(page, days, writeDayCursor)
		items, err = reportsToAPI(tx, days)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.ListQuotaReports200JSONResponse{Items: items, NextPageToken: next}, nil
}

// dayFilter reads the filters that both forms of the report share, with the range that the contract states.
func (a *API) dayFilter(partner *api.PartnerFilter, domain *api.DomainFilter, from *api.FromDay, to *api.ToDay) (store.DayFilter, error) {
	filter := store.DayFilter{Partner: text(partner)}
	var err error
	if filter.Domain, err = domainFilter(domain); err != nil {
		return filter, err
	}
	// East of Greenwich it may be tomorrow already.
	last := a.Now().UTC().AddDate(0, 0, 1)
	if to != nil {
		last = to.Time
	}
	first := last.AddDate(0, 0, -defaultReportDays)
	if from != nil {
		first = from.Time
	}
	filter.From, filter.To = first.Format(time.DateOnly), last.Format(time.DateOnly)
	if filter.From > filter.To {
		return filter, invalid("query/from", "range", "must not be after `to`")
	}
	return filter, nil
}

// writeDayCursor is the place of a day in the list, for a page token.
func writeDayCursor(day store.QuotaDay) string {
	text, _ := json.Marshal(cursorOf(day)) // strings and a time
	return string(text)
}

func cursorOf(day store.QuotaDay) store.DayCursor {
	return store.DayCursor{Day: day.Day, Domain: day.Domain, DayStart: day.DayStart}
}

func readDayCursor(text string) (store.DayCursor, error) {
	var cursor store.DayCursor
	if text == "" {
		return cursor, nil
	}
	if err := json.Unmarshal([]byte(text), &cursor); err != nil {
		return cursor, badPageToken()
	}
	return cursor, nil
}

func reportsToAPI(tx *store.Tx, days []store.QuotaDay) ([]api.QuotaReport, error) {
	refusals, err := tx.Refusals(days)
	if err != nil {
		return nil, err
	}
	reports := make([]api.QuotaReport, 0, len(days))
	for i, day := range days {
		report, err := reportToAPI(day, refusals[i])
		if err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
	return reports, nil
}

func reportToAPI(day store.QuotaDay, refusals []store.RefusalCount) (api.QuotaReport, error) {
	date, err := localDate(day.Day)
	if err != nil {
		return api.QuotaReport{}, fmt.Errorf("report of %s: %w", day.Domain, err)
	}
	report := api.QuotaReport{
		Day: date, Domain: day.Domain, Partner: day.Partner, TimeZone: day.TimeZone, Unit: api.QuotaUnit(day.Unit),
		Messages: day.Messages, Recipients: day.Recipients, Used: day.Spent, Limit: day.Limit,
		Percent: int(quota.Percent(day.Limit, day.Spent)), Refusals: convert(refusals, refusalToAPI),
	}
	for _, refusal := range refusals {
		report.Refused += refusal.Messages
	}
	return report, nil
}

func refusalToAPI(count store.RefusalCount) api.ReasonCount {
	return api.ReasonCount{Reason: count.Reason, Messages: count.Messages}
}

// ExportQuotaReports writes the same rows as ListQuotaReports, whole and from one snapshot, as CSV.
func (a *API) ExportQuotaReports(ctx context.Context, r rest.ExportQuotaReportsRequestObject) (rest.ExportQuotaReportsResponseObject, error) {
	p := r.Params
	filter, err := a.dayFilter(p.Partner, p.Domain, p.From, p.To)
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		file.Reset()
		return writeReports(tx, filter, &file)
	})
	if err != nil {
		return nil, err
	}
	return rest.ExportQuotaReports200TextCsvResponse{Body: &file, ContentLength: int64(file.Len())}, nil
}

// writeReports writes RFC 4180 CSV. It is made before it is sent, because a file that breaks off looks whole.
func writeReports(tx *store.Tx, filter store.DayFilter, file *bytes.Buffer) error {
	out := csv.NewWriter(file)
	out.UseCRLF = true
	if err := out.Write(reportColumns()); err != nil {
		return err
	}
	var after store.DayCursor
	for rows := 0; ; {
		days, err := tx.DayReports(filter, after, exportPage)
		if err != nil {
			return err
		}
		if rows += len(days); rows > maxExportRows {
			return invalid("query/from", "range", fmt.Sprintf("gives more than %d rows; ask for fewer days or for one partner", maxExportRows))
		}
		reports, err := reportsToAPI(tx, days)
		if err != nil {
			return err
		}
		for _, report := range reports {
			if err := out.Write(reportRecord(report)); err != nil {
				return err
			}
		}
		if len(days) < exportPage {
			out.Flush()
			return out.Error()
		}
		after = cursorOf(days[len(days)-1])
	}
}

func reportColumns() []string {
	return []string{
		"day", "domain", "partner", "time_zone", "unit", "messages", "recipients", "used", "limit", "percent", "refused", "refusals",
	}
}

func reportRecord(r api.QuotaReport) []string {
	refusals := make([]string, len(r.Refusals))
	for i, count := range r.Refusals {
		refusals[i] = count.Reason + "=" + strconv.FormatInt(count.Messages, 10)
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{
		r.Day.String(), r.Domain, r.Partner, r.TimeZone, string(r.Unit), number(r.Messages), number(r.Recipients),
		number(r.Used), number(r.Limit), strconv.Itoa(r.Percent), number(r.Refused), strings.Join(refusals, " "),
	}
}
