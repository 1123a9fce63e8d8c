# The same deploy with Capistrano's own flow; hooks where its plugins for other languages have theirs.
set :application, ENV.fetch("APP")
set :repo_url, ENV.fetch("REPOSITORY")
set :branch, ENV.fetch("VERSION", "main")
set :deploy_to, "/srv/#{fetch(:application)}"
set :keep_releases, 5

namespace :app do
  task :packages do
    on roles(:app) do
      venv = "#{shared_path}/../venv"
      execute :python3, "-m", "venv", venv unless test "[ -d #{venv} ]"
      execute "#{venv}/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "#{release_path}/requirements.txt"
    end
  end

  task :restart do
    on roles(:app) do
      execute :sudo, :systemctl, :restart, fetch(:application)
      health = "http://127.0.0.1:#{ENV.fetch('PORT')}/health"
      execute "for attempt in $(seq 100); do curl --silent --fail --output /dev/null #{health} && exit 0; sleep 0.1; done; exit 1"
    end
  end
end

after "deploy:updated", "app:packages"
after "deploy:publishing", "app:restart"
