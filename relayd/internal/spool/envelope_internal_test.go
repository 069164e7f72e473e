package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"activerelay/api/mailaddr"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const aID = "01KAQ7M2Z8Y3F6N5T4R1W0X9VB"

var aKey = envelopeKey(aID)

var sameHost = cmpopts.EquateComparable(netip.Addr{})

// goldenMessage has every field set; it is what the golden files hold.
func goldenMessage() *Message {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	return &Message{
		ID: aID, Domain: "example.com", Partner: "acme",
		From: mailaddr.Address{Local: "anna", Domain: "example.com"},
		Recipients: []Recipient{
			{
				Address: mailaddr.Address{Local: "b", Domain: "y.test"}, State: Pending, ORCPT: "rfc822;b@y.test",
				Notify: []string{"SUCCESS", "FAILURE"}, Attempts: 300, NextAttempt: noon.Add(time.Hour), LastAttempt: noon.Add(time.Minute),
				LastReply: "451 4.3.0 später", Interrupted: 2, DelayNoticed: true, Held: true, Cancelling: true,
			},
			{Address: mailaddr.Address{Local: "käthe", Domain: "xn--z-bga.test"}, State: Delivered},
		},
		Client: netip.MustParseAddr("2001:db8::10"), User: "anna@example.com", Helo: "client.test", Size: 5120,
		AcceptedAt: noon, SMTPUTF8: true, EightBit: true, RequireTLS: true, Ret: "HDRS", EnvID: "QQ314159", Notice: true,
		Units: 2, DayStart: noon.Truncate(24 * time.Hour), PolicyRevision: 4711,
	}
}

// What a spool of this day looks like is what every later release must read. A
// failure of the second half means that the format has changed: give it a new
// kind and keep this file's reader, or add the field so that old records, which
// do not have it, stay as they are.
func TestRecordsOfEveryVersionAreReadAsTheyWereWritten(t *testing.T) {
	want := goldenMessage()
	if os.Getenv("WRITE_GOLDEN") != "" {
		if err := os.WriteFile("testdata/envelope-2", appendEnvelope(aKey, nil, want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"1", "2"} {
		record, err := os.ReadFile("testdata/envelope-" + version)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeEnvelope(aID, aKey, record)
		if version == "1" {
			want.Recipients[0].Interrupted = 0 // not in it
		}
		if diff := cmp.Diff(want, got, sameHost); err != nil || diff != "" {
			t.Errorf("version %s: %v\n%s", version, err, diff)
		}
		want.Recipients[1].Attempts, want.Recipients[1].LastAttempt, want.Recipients[1].LastReply = 7, want.AcceptedAt, UnderWay
		got, err = decodeEnvelope(aID, aKey, appendNote(aKey, record, want, []int{1}))
		if diff := cmp.Diff(want, got, sameHost); err != nil || diff != "" {
			t.Errorf("version %s with a note: %v\n%s", version, err, diff)
		}
		want = goldenMessage()
		if version == "2" && !bytes.Equal(appendEnvelope(aKey, nil, want), record) {
			t.Errorf("the same message is written as %q, was %q", appendEnvelope(aKey, nil, want), record)
		}
	}
}

// fill gives every field below v a value by its type, so that a field that
// somebody adds to Message and not to the record is found out here.
func fill(t *rapid.T, v reflect.Value, name string) {
	switch target := v.Addr().Interface().(type) {
	case *time.Time:
		*target = time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name)).UTC()
		return
	case *netip.Addr:
		*target = rapid.SampledFrom([]netip.Addr{
			netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1%eth0"),
		}).Draw(t, name)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.StringN(1, 20, -1), rapid.StringN(100, 300, -1)).Draw(t, name))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Filter(func(n int64) bool { return n != 0 }).Draw(t, name))
	case reflect.Slice:
		n := rapid.IntRange(1, 5).Draw(t, name)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), fmt.Sprintf("%s[%d]", name, i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			// Half of the fields of a record are empty.
			if name != "full" && rapid.Bool().Draw(t, "empty") {
				continue
			}
			fill(t, v.Field(i), v.Type().Field(i).Name)
		}
	default:
		t.Fatalf("field %s: type %s is new here", name, v.Type())
	}
}

func TestAnEnvelopeIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := new(Message)
		fill(t, reflect.ValueOf(m).Elem(), rapid.SampledFrom([]string{"full", "some"}).Draw(t, "fields"))
		m.ID = aID
		got, err := decodeEnvelope(aID, aKey, appendEnvelope(aKey, nil, m))
		if diff := cmp.Diff(m, got, sameHost, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func TestAFieldOfALaterReleaseIsPassedOver(t *testing.T) {
	want := goldenMessage()
	begin := 0
	record := appendNested(nil, 0, func(b []byte) []byte {
		b = appendNumber(b, 60, 99)
		b = appendText(b, 61, "what nobody knows yet")
		b = appendMessage(b, want)
		return appendItem(b, 62, "")
	})
	record[begin] = envelopeKind
	got, err := decodeEnvelope(aID, aKey, sealFrame(aKey, record, begin))
	if diff := cmp.Diff(want, got, sameHost); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestARecordUnderTheKeyOfAnotherMessageIsDamaged(t *testing.T) {
	const other = "01KAQ7M2Z8Y3F6N5T4R1W0X9VC"
	otherKey, m := envelopeKey(other), goldenMessage()
	if m, err := decodeEnvelope(other, otherKey, appendEnvelope(aKey, nil, m)); err == nil {
		t.Errorf("the envelope of %s was given as that of %s", aID, m.ID)
	}
	if _, err := decodeEnvelope(other, otherKey, appendNote(aKey, appendEnvelope(otherKey, nil, m), m, []int{0})); err == nil {
		t.Error("the note of another message was taken")
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	whole := appendNote(aKey, appendEnvelope(aKey, nil, goldenMessage()), goldenMessage(), []int{0, 1})
	f.Add(whole, false)
	f.Add(whole[2:len(whole)-40], true)
	f.Add([]byte{}, true)
	if old, err := os.ReadFile("testdata/envelope-1"); err == nil {
		f.Add(old, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		record := data
		if sealed { // the checksum is no help against what we wrote wrongly ourselves
			record = binary.AppendUvarint([]byte{envelopeKind}, uint64(len(data)))
			record = sealFrame(aKey, append(record, data...), 0)
		}
		before := slices.Clone(record)
		m, err := decodeEnvelope(aID, aKey, record)
		if !bytes.Equal(before, record) {
			t.Fatal("reading changed the record")
		}
		if err != nil || record[0] == jsonVersion {
			return
		}
		again, err := decodeEnvelope(aID, aKey, appendEnvelope(aKey, nil, m))
		if diff := cmp.Diff(m, again, sameHost, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// oneRecipient is the usual message.
func oneRecipient() *Message {
	m := goldenMessage()
	m.Recipients = []Recipient{{Address: mailaddr.Address{Local: "b", Domain: "y.test"}, State: Pending}}
	m.User, m.Ret, m.EnvID = "", "", ""
	return m
}

func BenchmarkEnvelope(b *testing.B) {
	m := oneRecipient()
	record := appendEnvelope(aKey, nil, m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		scratch := make([]byte, 0, 512)
		for b.Loop() {
			scratch = appendEnvelope(aKey, scratch[:0], m)
		}
		b.ReportMetric(float64(len(scratch)), "bytes")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeEnvelope(aID, aKey, record); err != nil {
				b.Fatal(err)
			}
		}
	})
	noted := appendNote(aKey, record, m, []int{0})
	b.Run("decode with a note", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeEnvelope(aID, aKey, noted); err != nil {
				b.Fatal(err)
			}
		}
	})
}
