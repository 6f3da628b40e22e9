// Everything that a client does, with code by openapi-generator (go). Prints what it saw as one line of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"example/filmgate"
)

var client = newClient()

func newClient() *filmgate.APIClient {
	configuration := filmgate.NewConfiguration()
	configuration.Servers = filmgate.ServerConfigurations{{URL: os.Getenv("FILMGATE_URL")}}
	return filmgate.NewAPIClient(configuration)
}

func with(key string) context.Context {
	return context.WithValue(context.Background(), filmgate.ContextAccessToken, key)
}

func must[T any](value T, response *http.Response, err error) T {
	if err != nil {
		log.Fatal(err, response)
	}
	return value
}

func order(prompt, model string) filmgate.JobCreate {
	body := filmgate.NewJobCreate(prompt, model)
	body.SetSeconds(1)
	body.SetSize("128x96")
	return *body
}

func ended(ctx context.Context, job *filmgate.Job) *filmgate.Job {
	for job.Status == filmgate.QUEUED || job.Status == filmgate.RUNNING {
		job = must(client.JobsAPI.GetJob(ctx, job.Id).Prefer("wait=30").Execute())
	}
	return job
}

func refusal(problems map[int32]string, err error) {
	var refused *filmgate.GenericOpenAPIError
	if !errors.As(err, &refused) {
		log.Fatal("this was not refused: ", err)
	}
	problem := refused.Model().(filmgate.Problem)
	problems[problem.Status] = problem.Code
}

func main() {
	ctx := with(os.Getenv("FILMGATE_API_KEY"))
	kite := order("a kite", "sandbox/video")
	first := must(client.JobsAPI.CreateJob(ctx).JobCreate(kite).IdempotencyKey("first").Execute())
	again := must(client.JobsAPI.CreateJob(ctx).JobCreate(kite).IdempotencyKey("first").Execute())
	job := ended(ctx, first)
	video := job.Assets.Get().Video
	file := must(client.AssetsAPI.GetAssetContent(ctx, video.Id).Execute())
	content, err := file.Stat()
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(file.Name())

	long := order("a kite [slow:60]", "sandbox/video")
	slow := must(client.JobsAPI.CreateJob(ctx).JobCreate(long).IdempotencyKey("second").Execute())
	must(client.JobsAPI.CancelJob(ctx, slow.Id).Execute())
	canceled := ended(ctx, slow)

	listed := []string{}
	list := client.JobsAPI.ListJobs(ctx).Limit(1)
	for {
		page := must(list.Execute())
		for _, one := range page.Data {
			listed = append(listed, one.Id)
		}
		if !page.HasMore {
			break
		}
		list = list.Cursor(*page.NextCursor.Get())
	}
	both := []string{job.Id, slow.Id}
	slices.Sort(listed)
	slices.Sort(both)

	problems := map[int32]string{}
	_, _, err = client.JobsAPI.GetJob(with("fgk_nothing"), job.Id).Execute()
	refusal(problems, err)
	_, _, err = client.JobsAPI.GetJob(ctx, "job_nothing").Execute()
	refusal(problems, err)
	_, _, err = client.JobsAPI.CreateJob(ctx).JobCreate(order("a kite", "no/such")).Execute()
	refusal(problems, err)

	// The generated operation reads a stream to its end; this one sees each event when it happens.
	request, _ := http.NewRequestWithContext(ctx, "GET", os.Getenv("FILMGATE_URL")+"/v1/jobs/"+job.Id+"/events", nil)
	request.Header.Set("Authorization", "Bearer "+os.Getenv("FILMGATE_API_KEY"))
	stream, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Body.Close()
	events, url := []string{}, ""
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		var event filmgate.JobEvent
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			log.Fatal(err)
		}
		var known struct{ Type string }
		json.Unmarshal([]byte(data), &known)
		events = append(events, known.Type)
		if succeeded := event.JobSucceededEvent; succeeded != nil {
			url = succeeded.Data.Assets.Get().Video.ContentUrl
		}
	}

	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"replayed":   again.Id == first.Id,
		"status":     job.Status,
		"size":       video.SizeBytes,
		"downloaded": content.Size(),
		"canceled":   canceled.Status,
		"listed":     slices.Equal(listed, both),
		"problems":   problems,
		"events":     events,
		"url":        url == video.ContentUrl,
	})
}
